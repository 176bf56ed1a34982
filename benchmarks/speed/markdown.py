"""Tables in Markdown, with what they were measured on."""

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from benchmarks.speed.machine import describe, versions


def heading(device: str, packages: Sequence[str]) -> str:
    """The device, the date, the versions of the packages, and the command."""
    module = __import__("__main__").__spec__
    command = shlex.join(["python", "-m", module.name.removesuffix(".__main__"), *sys.argv[1:]]) if module else ""
    python = f"Python {sys.version.split()[0]}"
    today = datetime.now(UTC).date().isoformat()
    return f"{describe(device)}, {today}, {python}, {versions(*packages)}\n\n    {command}\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines; a `|` in a cell would begin another, and is written as `/`."""
    for cells in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
