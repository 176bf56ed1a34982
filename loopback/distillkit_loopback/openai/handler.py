"""HTTP as a vLLM server has it: bearer tokens, any JSON that Python reads, and broken responses."""

import json
import select
import threading
from dataclasses import dataclass

from distillkit_loopback.openai.routes import RawResponse
from distillkit_loopback.transport.messages import Response
from distillkit_loopback.transport.server import Handler, Responder, Server

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Hanging(Response):
    """No response, for as long as the client waits."""


class LocalHandler(Handler):
    """Handles the requests of one connection, with faults."""

    server: "LocalServer"

    def parse_request(self) -> bool:
        """A bearer token is the key."""
        if not super().parse_request():
            return False
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        del self.headers["x-api-key"]
        if scheme.lower() == "bearer":
            self.headers["x-api-key"] = token
        return True

    def respond(self) -> Response | None:
        """Respond, hang up, or neither until the client hangs up."""
        response = super().respond()
        if not isinstance(response, Hanging):
            return response
        self._hang()
        return None

    def encoded(self, response: Response) -> tuple[bytes, str]:
        """Bytes as they are; unlike `as_bytes` this sends NaN and infinity, as Python's json reads them."""
        data = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        return data, response.content_type if isinstance(response, RawResponse) else "application/json"

    def sent(self, response: Response, data: bytes) -> bytes:
        """Half of what is to be cut, and then the end of the connection."""
        if not (isinstance(response, RawResponse) and response.cut):
            return data
        self.close_connection = True
        return data[: len(data) // 2]

    def _hang(self) -> None:
        """Until the client goes away (its end of the connection becomes readable) or the server stops."""
        while not self.server.closing.wait(POLL_S):
            if select.select([self.connection], [], [], 0)[0]:
                return


class LocalServer(Server):
    """Knows when it is to be closed."""

    def __init__(self, respond: Responder, port: int, closing: threading.Event) -> None:
        """`port` 0 is any that is free; `closing` is set before the server is closed."""
        self.closing = closing
        super().__init__(respond, port, LocalHandler)

    @property
    def port(self) -> int:
        """The TCP port that the server listens on."""
        return int(self.server_address[1])
