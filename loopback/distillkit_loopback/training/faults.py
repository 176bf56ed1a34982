"""The faults of operations whose results are fetched later."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Fails:
    """What the request starts ends in failure, and nothing of it is done."""

    message: str = "injected fault"
    category: Literal["server", "user", "unknown"] = "server"
    """Whose fault the result says it is."""


@dataclass(frozen=True, slots=True)
class NeverDone:
    """What the request starts never gets ready."""
