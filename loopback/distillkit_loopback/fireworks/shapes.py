"""The account, and the training shapes: every requested one exists."""

from collections.abc import Iterable

from pydantic import JsonValue

from distillkit_loopback.fireworks.jobs import ACCOUNT
from distillkit_loopback.fireworks.messages import Call, Route
from distillkit_loopback.transport.messages import Response


class Shapes:
    """The training and deployment shapes that the account has from the start."""

    def __init__(self, context_length: int) -> None:
        """`context_length` in tokens, the same for all shapes."""
        self._context_length = context_length

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        shape = "/v1/accounts/{account}/trainingShapes/{shape}"
        yield Route.to("GET", "/v1/accounts", lambda call: Response({"accounts": [{"name": f"accounts/{ACCOUNT}"}]}))
        yield Route.to("GET", f"{shape}/versions", self._list)
        yield Route.to("GET", f"{shape}/versions/{{version}}", self._show)

    def _list(self, call: Call) -> Response:
        return Response({"trainingShapeVersions": [self._shape(call.request.path + "/v1")]})

    def _show(self, call: Call) -> Response:
        return Response(self._shape(call.request.path))

    def _shape(self, path: str) -> JsonValue:
        snapshot: JsonValue = {
            "maxSupportedContextLength": self._context_length,
            "deploymentShapeVersion": f"accounts/{ACCOUNT}/deploymentShapes/any/versions/v1",
            "trainerMode": "LORA_TRAINER",
        }
        return {"name": path.removeprefix("/v1/"), "snapshot": snapshot}
