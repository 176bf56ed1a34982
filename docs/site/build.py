"""Build the site strictly, into a folder named after the version: `python docs/site/build.py [FOLDER] [--url /]`.

Exit code 1 for a warning of Sphinx (a broken link or anchor, a page that is in no list), and for a page that would
fetch something from a network.
"""

import argparse
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from sphinx.cmd.build import build_main

HERE = Path(__file__).parent
TOP = HERE.parent.parent
FIRST_PAGE = "docs/README.html"
FETCHED = (
    re.compile(r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=\"((?:https?:)?//[^\"]*)\"", re.IGNORECASE),
    re.compile(r"<link\b[^>]*\bhref=\"((?:https?:)?//[^\"]*)\"", re.IGNORECASE),
    re.compile(r"(?:url\(|@import\s*)['\"]?((?:https?:)?//[^'\")\s]*)", re.IGNORECASE),
)
"""What a browser fetches by itself, in pages and style sheets; a link is only followed by its reader."""


def main() -> int:
    """Build, check, and write what lies beside the versions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=TOP / "build" / "docs")
    parser.add_argument("--url", default="/", help="where that folder will be on its web server")
    arguments = parser.parse_args()
    version = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    site = arguments.folder / version
    shutil.rmtree(site, ignore_errors=True)
    strict = ["--fail-on-warning", "--keep-going", "--quiet", "--fresh-env", "--jobs", "auto"]
    # Outside of what is published: what Sphinx keeps between builds has paths of this machine in it.
    kept = ["--doctree-dir", str(arguments.folder.parent / "docs-doctrees")]
    code = build_main([*strict, *kept, "--builder", "html", "--conf-dir", str(HERE), str(TOP), str(site)])
    if code:
        return code
    (site / ".buildinfo").unlink(missing_ok=True)
    write_redirect(site / "index.html", FIRST_PAGE)
    found = list(fetched(site))
    for place, address in found:
        print(f"{place}: a browser would fetch {address}", file=sys.stderr)
    write_versions(arguments.folder, arguments.url)
    return 1 if found else 0


def fetched(site: Path) -> Iterator[tuple[str, str]]:
    """Page or style sheet, and an address in it that a browser fetches from elsewhere."""
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = path.read_text(encoding="utf-8")
        for pattern in FETCHED:
            for address in pattern.findall(text):
                yield path.relative_to(site).as_posix(), address


def write_versions(folder: Path, url: str) -> None:
    """List the versions that are there for the selector, newest first, and lead to the newest."""
    versions = sorted(
        (path.name for path in folder.iterdir() if (path / FIRST_PAGE).is_file()), key=order, reverse=True
    )
    listed = [
        {"version": name, "name": name, "url": f"{url.rstrip('/')}/{name}/", "preferred": name == versions[0]}
        for name in versions
    ]
    (folder / "switcher.json").write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    write_redirect(folder / "index.html", f"{versions[0]}/{FIRST_PAGE}")


def order(version: str) -> tuple[int, ...]:
    """The numbers of a version, to sort by."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def write_redirect(path: Path, to: str) -> None:
    """A page that leads to another."""
    head = f'<meta charset="utf-8"><title>distillkit</title><meta http-equiv="refresh" content="0; url={to}">'
    path.write_text(f'<!doctype html>{head}<a href="{to}">distillkit</a>\n', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
