"""How many requests a service is sent at once: additive increase, multiplicative decrease, with an eye on latency.

After Jacobson, "Congestion Avoidance and Control" (1988), and for the latency Brakmo and Peterson, "TCP Vegas" (1995):
a service that is saturated but never says so only gets slower, so the window stops growing once the mean latency of a
window of responses is twice its floor. A floor that has held the window back for long may be that of other, shorter
work; then a quarter of the window is used for a while. If the service is saturated, that costs nothing and shows a
lower latency; if the work just takes longer now, it shows the same, which becomes the floor. Left out: slow start,
since `concurrency.initial` is the user's to set.
"""

import math
from collections.abc import Callable
from statistics import fmean

GROWN = 2.0
"""Times the floor at which latency stops growth."""
FLOOR_SECONDS = 120.0
FLOOR_ROUNDS = 20.0
"""How long a floor may hold the window back before it is measured anew: the longer of these, in mean latencies."""


class AimdWindow:
    """The arithmetic alone: `Admission` counts requests, and the clock is given."""

    def __init__(self, initial: int, most: int, clock: Callable[[], float]) -> None:
        """Start with `initial` requests at once, never more than `most` nor fewer than 1. `clock` is in seconds."""
        self._full_size = max(1, min(initial, most))
        self._most = most
        self._clock = clock
        self._cut_at = -math.inf
        self._counts_from = -math.inf
        self._latencies: list[float] = []
        self._was_full = True
        self._floor = math.inf
        self._floor_at = -math.inf
        self._measuring = False

    @property
    def size(self) -> int:
        """How many requests may be under way at once, now."""
        return max(1, self._full_size // 4) if self._measuring else self._full_size

    def succeeded(self, started: float, *, full: bool) -> None:
        """A request sent at `started` got its response now; `full`: as many were under way as may be."""
        if started < self._counts_from:
            return  # it met the load of before
        self._latencies.append(self._clock() - started)
        self._was_full = self._was_full and full
        if len(self._latencies) >= self.size:
            mean, was_full = fmean(self._latencies), self._was_full
            self._start_round()
            self._end_round(mean, was_full)

    def overloaded(self, started: float) -> None:
        """A request sent at `started` met an overload. Those sent before the last cut tell nothing new of it."""
        if started < self._cut_at:
            return
        self._full_size = max(1, self._full_size // 2)
        self._measuring = False
        self._cut_at = self._counts_from = self._clock()
        self._start_round()

    def _start_round(self) -> None:
        self._latencies, self._was_full = [], True

    def _end_round(self, mean: float, was_full: bool) -> None:
        now = self._clock()
        if self._measuring or mean <= self._floor:
            self._floor, self._floor_at = mean, now
        if self._measuring or not was_full or self._full_size >= self._most:
            self._measuring = False
        elif mean <= GROWN * self._floor:
            self._full_size += 1
        elif now - self._floor_at > max(FLOOR_SECONDS, FLOOR_ROUNDS * mean):
            self._measuring, self._counts_from = True, now
