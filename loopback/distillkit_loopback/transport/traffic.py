"""Which requests a server got, and how many at once."""

import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from distillkit_loopback.transport.messages import Request


class Traffic:
    """Counts requests from when they are read until their response is ready. Any thread may call."""

    def __init__(self, remembered: int) -> None:
        """`remembered` is how many requests are kept whole."""
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._requests: deque[Request] = deque(maxlen=remembered)
        self._now = 0
        self._most = 0

    @contextmanager
    def serving(self, request: Request) -> Iterator[None]:
        """Count a request as being served inside the block."""
        with self._lock:
            self._counts[request.path] += 1
            self._requests.append(request)
            self._now += 1
            self._most = max(self._most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    @property
    def counts(self) -> Mapping[str, int]:
        """Requests seen, by path."""
        with self._lock:
            return dict(self._counts)

    @property
    def most_at_once(self) -> int:
        """The largest number of requests that were served at one moment."""
        with self._lock:
            return self._most

    def requests(self, path: str | None = None) -> tuple[Request, ...]:
        """The last requests to that path (None: to any), in the order of arrival; `.body` is what was sent."""
        with self._lock:
            return tuple(request for request in self._requests if path in (None, request.path))

    def clear(self) -> None:
        """Count from zero again; what is being served now goes on being counted."""
        with self._lock:
            self._counts.clear()
            self._requests.clear()
            self._most = self._now
