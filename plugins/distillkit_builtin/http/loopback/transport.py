"""The HTTP of the Fireworks loopback service, and besides: a given port, bearer tokens, broken answers."""

import json
import select
import threading
from dataclasses import dataclass

from distillkit_builtin.fireworks.loopback.messages import Answer
from distillkit_builtin.fireworks.loopback.server import Handler, Responder, Server
from distillkit_builtin.http.loopback.routes import Raw

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Hanging(Answer):
    """No answer, for as long as the client waits."""


class LocalHandler(Handler):
    """One connection."""

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

    def handle_request(self) -> None:
        """Answer, hang up, or neither."""
        answer = self._answer()
        if isinstance(answer, Hanging):
            self._hang()
        if answer is None or isinstance(answer, Hanging):
            self.close_connection = True
            return
        # Unlike `as_bytes` this sends NaN and infinity, as Python's json reads them.
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("content-type", answer.content_type if isinstance(answer, Raw) else "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(answer, Raw) and answer.cut:
            data, self.close_connection = data[: len(data) // 2], True
        self.wfile.write(data)

    do_GET = do_POST = handle_request  # noqa: N815 - http.server's names

    def _hang(self) -> None:
        """Until the client goes away (its end of the connection becomes readable) or the server stops."""
        while not self.server.closing.wait(POLL_S):
            if select.select([self.connection], [], [], 0)[0]:
                return


class LocalServer(Server):
    """Listens on a given port."""

    def __init__(self, respond: Responder, port: int, closing: threading.Event) -> None:
        """`port` 0 is any that is free; `closing` is set before the server is closed."""
        self._wanted_port = port
        self.closing = closing
        super().__init__(respond)
        self.RequestHandlerClass = LocalHandler

    def server_bind(self) -> None:
        """On the port that is wanted, also if connections of a server that stopped there linger."""
        self.server_address = ("127.0.0.1", self._wanted_port)
        super().server_bind()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])
