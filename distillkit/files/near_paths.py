"""Which path may be meant by one that is not there."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

MOST_NAMES = 10_000
"""Of a folder that are looked at."""
ALIKE = 0.75
"""As `difflib` measures it; case does not count."""


def did_you_mean(path: str | os.PathLike[str]) -> str:
    """`; did you mean data/train.jsonl?` for a path that is not there, where one like it is; else empty."""
    near = near_path(Path(path))
    return "" if near is None else f"; did you mean {near}?"


def near_path(path: Path) -> Path | None:
    """The path whose parts are those of `path`, or, where there is no such name, the one most alike in that folder."""
    here = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        step = here / part
        if part != ".." and not os.path.lexists(step):
            close = _closest(part, here)
            if close is None:
                return None
            step = here / close
        here = step
    return None if here == path else here


def _closest(name: str, folder: Path) -> str | None:
    names: dict[str, str] = {}
    for each in _names(folder):
        names.setdefault(each.casefold(), each)
    found = get_close_matches(name.casefold()[:100], names, n=1, cutoff=ALIKE)
    return names[found[0]] if found else None


def _names(folder: Path) -> Iterator[str]:
    """What is in a folder but what is hidden; nothing of one that is not there or may not be read."""
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entry.name for entry in islice(entries, MOST_NAMES) if not entry.name.startswith("."))
    except (OSError, ValueError):
        return
