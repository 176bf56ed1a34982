"""Faults that any service can be told to have, and the orders for them: what, with which requests, and how often."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from distillkit_loopback.transport.messages import Request

AFault = TypeVar("AFault")


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP error instead of an answer; nothing is done."""

    status: int
    retry_after: float | None = None
    """Seconds, as a Retry-After header; None: no such header."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What goes with the status."""
        return {} if self.retry_after is None else {"retry-after": f"{self.retry_after:g}"}


@dataclass(frozen=True, slots=True)
class Delay:
    """The right answer, so late that a client may have given up."""

    seconds: float


@dataclass(slots=True)
class _Order(Generic[AFault]):
    fault: AFault
    wanted: Callable[[Request], bool]
    left: int | None
    skip: int

    def takes(self, request: Request) -> bool:
        """Whether this request has the fault; counts it."""
        if self.left == 0 or not self.wanted(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.left = None if self.left is None else self.left - 1
        return True


class Orders(Generic[AFault]):
    """The faults that were ordered; each request has at most one, of the one ordered first. Any thread may call."""

    def __init__(self) -> None:
        """None yet."""
        self._lock = threading.Lock()
        self._orders: list[_Order[AFault]] = []

    def order(self, fault: AFault, wanted: Callable[[Request], bool], *, times: int | None, after: int) -> None:
        """Order a fault for the next `times` requests that are `wanted` (None: for all), `after` so many without it."""
        with self._lock:
            self._orders.append(_Order(fault, wanted, times, after))

    def clear(self) -> None:
        """Behave from now on."""
        with self._lock:
            self._orders.clear()

    @property
    def waiting(self) -> int:
        """How many ordered faults have not all shown yet."""
        with self._lock:
            return sum(order.left != 0 for order in self._orders)

    def take(self, request: Request) -> AFault | None:
        """The fault of this request."""
        with self._lock:
            return next((order.fault for order in self._orders if order.takes(request)), None)
