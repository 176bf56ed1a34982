"""The warnings and errors of `run.log`: each message once, with how often it was said and when first and last."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from distillkit.frozen import Value

LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)")
"""As `RunFiles` formats them."""
MOST = 200
"""Different messages that are kept."""
LONGEST = 4000
"""Characters of one message."""
Level = Literal["WARNING", "ERROR", "CRITICAL"]


@dataclass(frozen=True, slots=True)
class LogLine(Value):
    """One message."""

    level: Level
    message: str
    """Its first line."""
    more: str
    """The lines behind it, such as a traceback."""
    first: str
    """When it was said first: `2026-11-29 18:03:01`, in the time zone of the run's machine."""
    last: str
    """When it was said last."""
    count: int = 1
    """How often."""


def read_log(path: Path) -> tuple[LogLine, ...]:
    """The warnings and errors of a log in the order in which they came first. Raises OSError."""
    found: dict[tuple[str, str], LogLine] = {}
    for line in _messages(path):
        key = (line.level, line.message)
        if key in found:
            found[key] = replace(found[key], count=found[key].count + 1, last=line.first)
        elif len(found) < MOST:
            found[key] = line
    return tuple(found.values())


def _messages(path: Path) -> Iterator[LogLine]:
    """Each message with the lines that follow it."""
    current: LogLine | None = None
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            begins = LINE.match(text)
            if begins is None:
                if current is not None and len(current.more) < LONGEST:
                    current = replace(current, more=current.more + text[:LONGEST])
                continue
            if current is not None:
                yield current
            when, level, message = begins.groups()
            told = level not in ("DEBUG", "INFO")
            current = LogLine(cast(Level, level), message[:LONGEST], "", when, when) if told else None
    if current is not None:
        yield current
