"""What rank 0 and the others say to each other."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillkit.errors import BadStepError, DistillkitError, InputError, PluginError, RunFailedError

if TYPE_CHECKING:
    from distillkit_builtin.local.ranks.worker import Post


class Order(ABC):
    """Something that another rank is to do; a frozen value that travels there."""

    @abstractmethod
    async def carry_out(self, post: "Post", hand_over: Callable[[object], None]) -> Any:  # noqa: ANN401 - see the orders
        """Do it. Returns the result; `hand_over` sends pieces of it that are there earlier."""


@dataclass(frozen=True, slots=True)
class Given:
    """Rank 0: carry this out; `number` is how it is spoken of."""

    number: int
    order: Order


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rank 0: nobody waits for that any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Dismissed:
    """Rank 0: the run has ended."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Another rank: a part of what was asked for."""

    number: int
    value: object


@dataclass(frozen=True, slots=True)
class Done:
    """Another rank: carried out."""

    number: int
    result: object


@dataclass(frozen=True, slots=True)
class Failed:
    """Another rank: it could not be carried out."""

    number: int
    error: DistillkitError


@dataclass(frozen=True, slots=True)
class Left:
    """Another rank: dismissed; this is the last word."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Another rank: the user should know this."""

    text: str


def portable(error: Exception, rank: int) -> DistillkitError:
    """The error as rank 0 raises it: of the same kind where a kind means something, and saying where it happened."""
    kind = next((kind for kind in (BadStepError, InputError, PluginError) if isinstance(error, kind)), RunFailedError)
    what = str(error) if isinstance(error, DistillkitError) else f"{type(error).__name__}: {error}"
    return kind(f"rank {rank}: {what}")
