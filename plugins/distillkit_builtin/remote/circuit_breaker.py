"""Whether one replica may be sent requests.

Own code, because what a library's circuit breaker offers is a wrapper around a call that raises while it is open. Ours
never refuses a call: it says, for each of several replicas, whether it may be chosen and when it may be again.
"""

import math
from collections.abc import Callable

FAILURES = 3
"""In a row, after which a replica is sent no more requests."""
FIRST_COOL_DOWN = 1.0
LONGEST_COOL_DOWN = 30.0
"""Seconds until one probing request; they double with each probe that fails."""


class CircuitBreaker:
    """Closed: requests are sent. Open: none is. Half-open, once it has cooled down: one request at a time."""

    def __init__(self, clock: Callable[[], float], longest_cool_down: float = LONGEST_COOL_DOWN) -> None:
        """Closed; `clock` is in seconds."""
        self._clock = clock
        self._longest = longest_cool_down
        self._failures = 0
        self._cool_down = FIRST_COOL_DOWN
        self._open_until: float | None = None
        self._cooling_until = -math.inf
        self._probing = False

    @property
    def is_closed(self) -> bool:
        """Whether the replica is healthy, as far as is known."""
        return self._open_until is None

    def opens_in(self) -> float:
        """Seconds until it may be sent a request: 0 for now, infinity while another request probes it."""
        if self._probing:
            return math.inf
        until = self._cooling_until if self._open_until is None else max(self._cooling_until, self._open_until)
        return max(0.0, until - self._clock())

    def started(self) -> bool:
        """A request goes out; whether it is a probe, which is to be said again when it has ended."""
        self._probing = not self.is_closed
        return self._probing

    def responded(self) -> None:
        """The replica works: it gave a result, or a refusal that is about the request alone."""
        self._failures, self._cool_down, self._open_until, self._probing = 0, FIRST_COOL_DOWN, None, False

    def failed(self, *, probe: bool) -> None:
        """The replica gave no response or a broken one. Failures of requests sent before it opened change nothing."""
        self._failures += 1
        if probe:
            self._probing = False
            self._cool_down = min(2 * self._cool_down, self._longest)
            self._open_until = self._clock() + self._cool_down
        elif self.is_closed and self._failures >= FAILURES:
            self._open_until = self._clock() + self._cool_down

    def abandoned(self, *, probe: bool) -> None:
        """Nobody waits for the response any more; it says nothing of the replica."""
        if probe:
            self._probing = False

    def cool_down(self, seconds: float) -> None:
        """Send nothing for so many seconds: what the replica's Retry-After asks for."""
        self._cooling_until = max(self._cooling_until, self._clock() + seconds)
