"""How a server refuses a request."""

from typing import TypeVar

from pydantic import JsonValue, ValidationError

from distillkit_loopback.transport.messages import Body, Response

ABody = TypeVar("ABody", bound=Body)


class Refused(Exception):  # noqa: N818 - an HTTP response, not a bug
    """A request is turned down, in the words of vLLM."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        """`kind` is what vLLM calls the error's type; `param` the field of the request that is wrong."""
        super().__init__(message)
        self.status = status
        self.error: dict[str, JsonValue] = {"message": message, "type": kind, "param": param, "code": status}

    def response(self) -> Response:
        """The refusal as it is sent."""
        return Response({"error": self.error}, self.status)


def unknown_model(name: str) -> Refused:
    """The refusal of a model that is not served: 404."""
    return Refused(404, f"The model `{name}` does not exist.", "NotFoundError", "model")


def read(shape: type[ABody], body: JsonValue) -> ABody:
    """The body of a request. Raises Refused if it is not of that shape."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        raise Refused(400, str(error)) from error
