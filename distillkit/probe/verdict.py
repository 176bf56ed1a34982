"""One thing that a probe's figures say."""

from dataclasses import dataclass
from typing import Literal

from distillkit.frozen import Value

Level = Literal["ok", "warn", "refuse"]


@dataclass(frozen=True, slots=True)
class ProbeVerdict(Value):
    """One thing that the figures say."""

    level: Level
    what: str
    """Its kind, in one word; the same in every probe."""
    message: str
    """What was found, and what to do."""
