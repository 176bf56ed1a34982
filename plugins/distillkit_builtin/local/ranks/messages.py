"""The messages between rank 0 and the other ranks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from distillkit.errors import BadStepError, DistillkitError, InputError, PluginError, RunFailedError, error_text

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Execute(Generic[C]):
    """From rank 0: execute a command; every other message about it has its `number`."""

    number: int
    command: C


@dataclass(frozen=True, slots=True)
class Cancel:
    """From rank 0: nobody waits for that command any more."""

    number: int


@dataclass(frozen=True, slots=True)
class ShutDown:
    """From rank 0: the run has ended."""

    files: Mapping[str, str]
    """What it left in its directory that says what it came to, by name: on another host nobody sees it."""


@dataclass(frozen=True, slots=True)
class Alive:
    """To and from rank 0: nothing but that this process is there."""


@dataclass(frozen=True, slots=True)
class Item:
    """To rank 0: a value of a command that streams them."""

    number: int
    value: object


@dataclass(frozen=True, slots=True)
class Done:
    """To rank 0: the command was executed."""

    number: int
    result: object


@dataclass(frozen=True, slots=True)
class Failed:
    """To rank 0: the command could not be executed."""

    number: int
    error: DistillkitError


@dataclass(frozen=True, slots=True)
class Stopped:
    """To rank 0: shut down; no other message follows."""


def portable(error: Exception, rank: str) -> DistillkitError:
    """The error as rank 0 raises it: of the same class where the engine treats it apart, with the rank in its text.

    `rank` is what the rank is called: `rank 1`.
    """
    kind = next((kind for kind in (BadStepError, InputError, PluginError) if isinstance(error, kind)), RunFailedError)
    reason = str(error) if isinstance(error, DistillkitError) else error_text(error)
    return kind(f"{rank}: {reason}")
