"""What goes over the wire: requests, responses, and refusals of what no server can read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue


class Body(BaseModel):
    """A request's body. What a service does not read is let through: clients send more than is needed here."""

    model_config = ConfigDict(frozen=True, extra="ignore")


ABody = TypeVar("ABody", bound=Body)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that a service received."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case; without those that carry the key."""
    body: JsonValue
    received: float
    """`time.monotonic()`."""
    raw: bytes = b""
    """The body, where it is not JSON but protobuf."""

    @property
    def fields(self) -> Mapping[str, JsonValue]:
        """The body, where it is an object; else nothing."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def model(self) -> str:
        """What the body names as its `model`; empty if it names none."""
        return str(self.fields.get("model", ""))


@dataclass(frozen=True, slots=True)
class Response:
    """A response with a body of JSON, or of bytes that are sent as they are."""

    body: JsonValue | bytes
    status: int = 200
    """204: nothing is sent of the body."""
    headers: Mapping[str, str] = field(default_factory=dict)


def as_bytes(body: JsonValue) -> bytes:
    """JSON in UTF-8, without NaN or infinity."""
    return json.dumps(body, allow_nan=False).encode()


def refusal(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as Fireworks sends it, and as any server refuses what is no request at all."""
    error: JsonValue = {"error": {"message": message, "code": code}}
    return Response(error, status, headers or {})
