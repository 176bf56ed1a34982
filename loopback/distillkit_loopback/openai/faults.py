"""How a loopback server can be told to misbehave: what, to which requests, and how often."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit_loopback.transport import faults
from distillkit_loopback.transport.faults import Delay, Orders
from distillkit_loopback.transport.messages import Request

Payload = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Status(faults.Status):
    """An HTTP error instead of an answer; nothing is computed."""

    body: JsonValue = None
    """None: an error in the server's own form."""


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer until the client hangs up or the server stops."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends before the answer; nothing is computed."""


@dataclass(frozen=True, slots=True)
class ShortBody:
    """The connection ends within the answer's body."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Status 200, and a body that is no JSON."""


@dataclass(frozen=True, slots=True)
class WrongId:
    """One id is another one, wherever the answer shows it."""

    at: int = -1


@dataclass(frozen=True, slots=True)
class BadLogprob:
    """One logprob is `value`: NaN, -inf, a positive number, or None (null). NaN and -inf leave as Python's JSON."""

    value: float | None = float("nan")
    at: int = -1


@dataclass(frozen=True, slots=True)
class Shorter:
    """The last `count` logprobs are not there."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class MissingEntry:
    """One logprob in between is not there."""

    at: int = -2


@dataclass(frozen=True, slots=True)
class DuplicateEntry:
    """One logprob is there twice."""

    at: int = -1


@dataclass(frozen=True, slots=True)
class SwappedEntries:
    """The logprob at `at` and the one before it, with their ids, have changed places."""

    at: int = -1


@dataclass(frozen=True, slots=True)
class NoIds:
    """The answer does not say which ids it is about, although it was asked to."""


Distortion = WrongId | BadLogprob | Shorter | MissingEntry | DuplicateEntry | SwappedEntries | NoIds
"""What is wrong with an answer's logprobs: those of the prompt where they were asked for, else the completion's.

`at` counts from the first token of the prompt (or completion); negative numbers from behind.
"""
Fault = Status | Delay | Hang | Cut | ShortBody | Garbage | Distortion


class Faults(Orders[Fault]):
    """The faults that were ordered."""

    def next(
        self,
        fault: Fault,
        *,
        path: str | None = None,
        times: int | None = 1,
        when: Callable[[Payload], bool] | None = None,
        after: int = 0,
    ) -> None:
        """Order a fault.

        Args:
            fault: What goes wrong.
            path: Only requests to exactly this path; None: to any.
            times: So many requests; None: all from now on.
            when: Only requests whose JSON body this accepts; a request without one has an empty body.
            after: So many of those requests are let through first.
        """

        def wanted(request: Request) -> bool:
            return path in (None, request.path) and (when is None or when(request.fields))

        self.order(fault, wanted, times=times, after=after)
