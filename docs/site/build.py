"""Build the site strictly, into a folder named after the version: `python docs/site/build.py [FOLDER] [--url /]`.

Exit code 1 for a warning of Sphinx (a broken link or anchor, a page that is in no list), and for a page that would
fetch something from a network.
"""

import argparse
import shutil
import sys
import tomllib
from pathlib import Path

from published import FIRST_PAGE, fetched, write_redirect, write_versions
from sphinx.cmd.build import build_main

HERE = Path(__file__).parent
TOP = HERE.parent.parent


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
    write_versions(arguments.folder, arguments.url)
    found = list(fetched(site))
    for place, address in found:
        print(f"{place}: a browser would fetch {address}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
