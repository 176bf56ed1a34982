"""What goes over the wire, below any of the service's parts: requests, answers, refusals and routes."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from distillkit_builtin.fireworks.loopback.faults import Effect

Json = Mapping[str, JsonValue]


class Body(BaseModel):
    """A request's body. What the service does not read is let through: the SDK sends more than is needed here."""

    model_config = ConfigDict(frozen=True, extra="ignore")


ABody = TypeVar("ABody", bound=Body)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the service received."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case; without those that carry the key."""
    body: JsonValue
    received: float
    """`time.monotonic()`."""

    @property
    def model(self) -> str:
        """What the body names as its `model`; empty if it names none."""
        return str(self.body.get("model", "")) if isinstance(self.body, dict) else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: JSON, or bytes as an event stream."""

    body: JsonValue | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 - an HTTP answer, not a bug
    """The service says no, as the real one would."""

    def __init__(self, status: int, message: str, code: str = "INVALID_ARGUMENT") -> None:
        """`code` is the name that stands beside the message."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code

    def answer(self, headers: Mapping[str, str] | None = None) -> Answer:
        """In the form of every error of the service."""
        error: JsonValue = {"error": {"message": self.message, "code": self.code}}
        return Answer(error, self.status, headers or {})


def not_found(what: str) -> Refused:
    """404."""
    return Refused(404, f"{what} not found", "NOT_FOUND")


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way to the part that answers it."""

    request: Request
    names: Mapping[str, str]
    """What the route's pattern found in the path."""
    effect: Effect | None
    """How to misbehave, this once."""

    def body(self, shape: type[ABody]) -> ABody:
        """The body, read. Raises Refused if it is not of that shape."""
        try:
            return shape.model_validate(self.request.body)
        except ValidationError as error:
            raise Refused(400, f"{shape.__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Route:
    """Which requests a function answers."""

    method: str
    path: re.Pattern[str]
    function: Callable[[Call], Answer]

    @classmethod
    def to(cls, method: str, path: str, function: Callable[[Call], Answer]) -> "Route":
        """`{name}` in the path stands for one segment, or the part of it before a colon."""
        return cls(method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", path)), function)


def dispatch(routes: Iterable[Route], request: Request, effect: Effect | None) -> Answer:
    """Hand the request to the first route that fits."""
    for route in routes:
        found = route.path.fullmatch(request.path)
        if found and route.method == request.method:
            return route.function(Call(request, found.groupdict(), effect))
    raise not_found(f"route {request.method} {request.path}")


def as_bytes(body: JsonValue) -> bytes:
    """JSON as it is sent."""
    return json.dumps(body, allow_nan=False).encode()
