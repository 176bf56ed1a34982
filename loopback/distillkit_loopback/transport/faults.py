"""Faults on command: one queue for all servers, and the faults that every server can have.

```python
server.faults.add(Status(503, retry_after=1.5), times=2, where="/completions$")
```
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import JsonValue

from distillkit_loopback.transport.messages import Request

AFault = TypeVar("AFault")
Where = str | Callable[[Request], bool] | None
"""Which requests: a regular expression that is searched for in `METHOD /path`, a function of the request, None: all."""


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP error instead of a result; nothing is computed."""

    status: int
    retry_after: float | None = None
    """Seconds, as a Retry-After header; None: no such header."""
    message: str = "injected fault"
    """What the body says, in the form of the server's own errors."""
    body: JsonValue = None
    """The whole body, instead of that; None: the server's own form."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response."""
        return {} if self.retry_after is None else {"retry-after": f"{self.retry_after:g}"}


@dataclass(frozen=True, slots=True)
class Delay:
    """The right response, so late that a client may have given up."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hangup:
    """The connection ends without a response; with `applied`, after the work was done."""

    applied: bool = False


@dataclass(slots=True)
class _Queued(Generic[AFault]):
    fault: AFault
    matches: Callable[[Request], bool]
    left: int | None
    skip: int

    def takes(self, request: Request) -> bool:
        """Whether this request has the fault; counts it."""
        if self.left == 0 or not self.matches(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.left = None if self.left is None else self.left - 1
        return True


class Faults(Generic[AFault]):
    """A queue of faults; each request has at most one, the first in the queue that is for it. Any thread may call."""

    def __init__(self) -> None:
        """An empty queue: the server behaves."""
        self._lock = threading.Lock()
        self._queue: list[_Queued[AFault]] = []

    def add(self, fault: AFault, *, times: int | None = 1, after: int = 0, where: Where = None) -> None:
        """Have requests fail.

        Args:
            fault: What goes wrong.
            times: For so many requests; None: for all from now on.
            after: So many of the requests that `where` matches have no fault first.
            where: Which requests.

        Raises:
            re.error: if `where` is a text and no regular expression.
        """
        queued = _Queued(fault, _matcher(where), times, after)
        with self._lock:
            self._queue.append(queued)

    def clear(self) -> None:
        """Behave from now on: forget every fault that has not shown yet."""
        with self._lock:
            self._queue.clear()

    @property
    def pending(self) -> int:
        """How many added faults have not shown as often as they should."""
        with self._lock:
            return sum(queued.left != 0 for queued in self._queue)

    def take(self, request: Request) -> AFault | None:
        """The fault of this request, which is counted; None: it has none. For the server."""
        with self._lock:
            return next((queued.fault for queued in self._queue if queued.takes(request)), None)


def _matcher(where: Where) -> Callable[[Request], bool]:
    if where is None:
        return lambda request: True
    if not isinstance(where, str):
        return where
    pattern = re.compile(where)
    return lambda request: pattern.search(f"{request.method} {request.path}") is not None
