"""How a loopback server can be told to misbehave: what, to which requests, and how often."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

Payload = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP error instead of an answer; nothing is computed."""

    status: int
    retry_after: float | None = None
    """Seconds, as a Retry-After header; None: no such header."""
    body: JsonValue = None
    """None: an error in the server's own form."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The right answer, late."""

    seconds: float


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


@dataclass(slots=True)
class _Order:
    fault: Fault
    path: str | None
    when: Callable[[Payload], bool] | None
    skip: int
    left: int | None

    def takes(self, path: str, payload: Payload) -> bool:
        """Whether this request has the fault; counts it."""
        if self.left == 0 or self.path not in (None, path) or (self.when is not None and not self.when(payload)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.left = None if self.left is None else self.left - 1
        return True


class Faults:
    """The faults that were ordered; each request has at most one, of the one ordered first. Any thread may call."""

    def __init__(self) -> None:
        """None yet."""
        self._lock = threading.Lock()
        self._orders: list[_Order] = []

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
        with self._lock:
            self._orders.append(_Order(fault, path, when, after, times))

    def clear(self) -> None:
        """Behave from now on."""
        with self._lock:
            self._orders.clear()

    @property
    def waiting(self) -> int:
        """How many ordered faults have not all shown yet."""
        with self._lock:
            return sum(order.left != 0 for order in self._orders)

    def take(self, path: str, payload: Payload) -> Fault | None:
        """The fault of this request."""
        with self._lock:
            return next((order.fault for order in self._orders if order.takes(path, payload)), None)
