"""Faults on command: one queue for all servers, and the faults that every server can have.

```python
server.faults.add(Status(503, retry_after=1.5), times=2, where="/completions$")
```
"""

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pydantic import JsonValue

from distillkit_loopback.transport.messages import Request

GENERATION_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
"""What vLLM reads of a generation_config.json."""
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


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The server fills in sampling fields that a request leaves out, as vLLM does from the model's own file."""

    values: Mapping[str, float]
    """By the names of generation_config.json: those in `GENERATION_FIELDS`. `max_new_tokens` is a limit."""
    forced: bool = False
    """Also where the request names the field: what touches the sampling can be said by no request."""

    @classmethod
    def read(cls, text: str) -> "GenerationConfig":
        """That of a generation_config.json's text. Raises ValueError if that is no object with any of the fields."""
        found = json.loads(text)
        if not isinstance(found, dict) or not (values := {k: found[k] for k in GENERATION_FIELDS if k in found}):
            raise ValueError(f"no object with any of {', '.join(GENERATION_FIELDS)}")
        return cls(values)

    def filled(self, request: Request) -> Request:
        """The request as the server reads it; in SGLang's `sampling_params` null is a value too, and stands.

        vLLM's token interface takes nothing from the file.
        """
        inner = request.fields.get("sampling_params")
        if not request.fields:
            return request
        if isinstance(inner, dict) and "token_ids" in request.fields:
            taken = self._filled(inner, "max_tokens") if self.forced else inner
            return replace(request, body={**request.fields, "sampling_params": taken})
        if isinstance(inner, dict):
            return replace(request, body={**request.fields, "sampling_params": self._filled(inner, "max_new_tokens")})
        named = {name: value for name, value in request.fields.items() if value is not None}
        return replace(request, body={**request.fields, **self._filled(named, "max_tokens")})

    def _filled(self, named: Mapping[str, JsonValue], limit_name: str) -> dict[str, JsonValue]:
        values: dict[str, JsonValue] = {name: value for name, value in self.values.items() if name != "max_new_tokens"}
        limit, asked = self.values.get("max_new_tokens"), named.get(limit_name)
        limits = {} if limit is None else {limit_name: min(int(limit), asked if isinstance(asked, int) else int(limit))}
        return {**named, **values, **limits} if self.forced else {**values, **named, **limits}


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
