"""From a request to the part of a service that responds to it: calls, refusals and routes."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from pydantic import ValidationError

from distillkit_loopback.transport.messages import ABody, Request, Response, refusal

AFault = TypeVar("AFault")


class Refused(Exception):  # noqa: N818 - an HTTP response, not a bug
    """The service refuses a request, as the real one would."""

    def __init__(self, status: int, message: str, code: str = "INVALID_ARGUMENT") -> None:
        """`code` is the name that some services put beside the message."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """In the form of every error of the Fireworks service."""
        return refusal(self.status, self.message, self.code, headers)


def not_found(what: str) -> Refused:
    """A refusal with status 404."""
    return Refused(404, f"{what} not found", "NOT_FOUND")


@dataclass(frozen=True, slots=True)
class Call(Generic[AFault]):
    """A request on its way to the part that responds to it."""

    request: Request
    names: Mapping[str, str]
    """The values of the route pattern's placeholders in the path."""
    fault: AFault | None
    """What goes wrong with this request; None: nothing."""

    def body(self, shape: type[ABody]) -> ABody:
        """The body, read. Raises Refused if it is not of that shape."""
        try:
            return shape.model_validate(self.request.body)
        except ValidationError as error:
            raise Refused(400, f"{shape.__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Route(Generic[AFault]):
    """The requests to which a function responds."""

    method: str
    path: re.Pattern[str]
    function: Callable[[Call[AFault]], Response]

    @classmethod
    def to(cls, method: str, path: str, function: Callable[[Call[AFault]], Response]) -> Self:
        """`{name}` in the path stands for one segment, or the part of it before a colon; `{name+}` for any text."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", path)
        return cls(method, re.compile(re.sub(r"\{(\w+)\+\}", r"(?P<\1>.+)", pattern)), function)


def dispatch(routes: Iterable[Route[AFault]], request: Request, fault: AFault | None) -> Response:
    """Hand the request to the first route that fits."""
    for route in routes:
        found = route.path.fullmatch(request.path)
        if found and route.method == request.method:
            return route.function(Call(request, found.groupdict(), fault))
    raise not_found(f"route {request.method} {request.path}")
