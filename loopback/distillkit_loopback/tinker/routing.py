"""Calls and routes of this service, and what its parts share: how it behaves, its models, its folder, its worker."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from pydantic import JsonValue, ValidationError

from distillkit_loopback.hf.named_models import NamedModels
from distillkit_loopback.tinker.behavior import Behavior
from distillkit_loopback.tinker.checkpoints import Checkpoints
from distillkit_loopback.tinker.faults import Fault
from distillkit_loopback.training.futures import Futures, Worker
from distillkit_loopback.transport import routes
from distillkit_loopback.transport.messages import Body, Response

Call: TypeAlias = routes.Call[Fault]
Route: TypeAlias = routes.Route[Fault]
Request = TypeVar("Request", bound=Body)
API = "/api/v1/"


class Invalid(routes.Refused):
    """A request that is not of the right shape: 422, and the whole request in the response, as FastAPI has it."""

    def __init__(self, detail: JsonValue) -> None:
        """`detail` is a list of what is wrong."""
        super().__init__(422, "the request is not valid")
        self.detail = detail


def read(call: Call, shape: type[Request]) -> Request:
    """The body, read. Raises Invalid if it is not of that shape."""
    try:
        return shape.model_validate(call.request.body)
    except ValidationError as error:
        raise Invalid(
            [
                {"type": each["type"], "loc": ["body", *each["loc"]], "msg": each["msg"], "input": call.request.body}
                for each in error.errors()
            ]
        ) from error


def detail(status: int, what: JsonValue, headers: Mapping[str, str] | None = None) -> Response:
    """An error in the form of every error of the service."""
    return Response({"detail": what}, status, headers or {})


def promise(request_id: str, **more: JsonValue) -> Response:
    """The response to a request whose result is fetched later."""
    return Response({"request_id": request_id, **more})


@dataclass(frozen=True, slots=True)
class Shared:
    """What the service's parts share."""

    behavior: Behavior
    models: NamedModels
    served: tuple[str, ...]
    """The names of the models that can be trained and sampled; the first one's weights stand behind unknown names."""
    checkpoints: Checkpoints
    futures: Futures
    worker: Worker
    closing: threading.Event
    """Set when the service stops."""

    def base(self, name: str) -> str:
        """The name under which the weights are found. Raises Refused for a model that is not served."""
        if name in self.served:
            return name
        if self.behavior.knows_models:
            raise routes.Refused(400, f"Base model {name!r} is not supported. Supported: {', '.join(self.served)}")
        return self.served[0]
