"""What is published beside the pages: the list of versions, redirects; and a look at what pages would fetch."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

FIRST_PAGE = "docs/README.html"
FETCHED = (
    re.compile(r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=\"((?:https?:)?//[^\"]*)\"", re.IGNORECASE),
    re.compile(r"<link\b[^>]*\bhref=\"((?:https?:)?//[^\"]*)\"", re.IGNORECASE),
    re.compile(r"(?:url\(|@import\s*)['\"]?((?:https?:)?//[^'\")\s]*)", re.IGNORECASE),
)
"""What a browser fetches by itself, in pages and style sheets; a link is only followed by its reader."""


def fetched(site: Path) -> Iterator[tuple[str, str]]:
    """Page or style sheet, and an address in it that a browser fetches from elsewhere."""
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = path.read_text(encoding="utf-8")
        for pattern in FETCHED:
            for address in pattern.findall(text):
                yield path.relative_to(site).as_posix(), address


def write_versions(folder: Path, url: str) -> None:
    """List the versions that are there for the selector, newest first, and lead to the newest."""
    there = (path.name for path in folder.iterdir() if (path / FIRST_PAGE).is_file())
    versions = sorted(there, key=order, reverse=True)
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
