"""HTTP on 127.0.0.1: reads requests, writes responses, and ends its connections when it is closed."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import JsonValue

from distillkit_loopback.transport.messages import Request, Response, as_bytes, refusal

MAX_BODY = 64 * 2**20
"""Bytes."""
JOIN_S = 5.0
MALFORMED = "INVALID_ARGUMENT"
PROTOBUF = "application/x-protobuf"
SECRET = ("x-api-key", "authorization")

Responder = Callable[[Request, str | None], Response | None]
"""`(request, key) -> response`; None hangs up."""


class Handler(BaseHTTPRequestHandler):
    """One connection, in its own thread."""

    protocol_version = "HTTP/1.1"
    # Responses leave in one packet and at once: with Nagle's algorithm each trainer call costs 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: "Server"

    def handle(self) -> None:
        """Respond to requests until the connection ends; a client that goes away is no error."""
        self.server.opened(self.connection)
        try:
            with suppress(ConnectionError, TimeoutError):
                super().handle()
        finally:
            self.server.ended(self.connection)

    def handle_request(self) -> None:
        """Respond to one request, or hang up."""
        response = self.respond()
        if response is None:
            self.close_connection = True
            return
        data, kind = self.encoded(response)
        self.send_response(response.status)
        if "content-type" not in response.headers:
            self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.sent(response, data))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815 - http.server's names

    def encoded(self, response: Response) -> tuple[bytes, str]:
        """The response's body and content type; bytes are an event stream, unless a header says otherwise."""
        if response.status == HTTPStatus.NO_CONTENT:
            return b"", "application/json"
        if isinstance(response.body, bytes):
            return response.body, "text/event-stream"
        return as_bytes(response.body), "application/json"

    def sent(self, response: Response, data: bytes) -> bytes:
        """As much of the body as really goes out: all of it."""
        return data

    def respond(self) -> Response | None:
        """The server's response to the request that comes next; None hangs up."""
        size = int(self.headers.get("content-length") or 0)
        if size > MAX_BODY:
            self.close_connection = True
            return refusal(413, f"a body of more than {MAX_BODY} bytes", MALFORMED)
        raw = self.rfile.read(size)
        sealed = self.headers.get_content_type() == PROTOBUF
        try:
            body: JsonValue = json.loads(raw) if raw and not sealed else None
        except ValueError:
            return refusal(400, "the body is not JSON", MALFORMED)
        url = urlsplit(self.path)
        names = {name.lower(): value for name, value in self.headers.items()}
        shown = {name: value for name, value in names.items() if name not in SECRET}
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        request = Request(self.command, url.path, query, shown, body, time.monotonic(), raw if sealed else b"")
        return self.server.respond(request, names.get("x-api-key"))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the service keeps its own record."""


class Server(ThreadingHTTPServer):
    """One daemon thread a connection."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, respond: Responder, port: int = 0, handler: type[Handler] = Handler) -> None:
        """Listen on a port of 127.0.0.1 (0: any that is free). Raises OSError if it is taken."""
        super().__init__(("127.0.0.1", port), handler)
        self.respond = respond
        self._connections: dict[socket.socket, threading.Thread] = {}
        """Open connections, and the threads that respond on them."""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="loopback", daemon=True)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the base class has it
        """A client that hangs up, as one does that is stopped, is nothing to print about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def start(self) -> None:
        """Start the server's thread, which accepts connections from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and end every connection and its thread; one that still computes may take `JOIN_S` more."""
        self.shutdown()
        self.server_close()
        self._thread.join()
        with self._lock:
            open_now = dict(self._connections)
        for connection in open_now:
            _end(connection)
        for thread in open_now.values():
            if thread is not threading.current_thread():
                thread.join(JOIN_S)

    def opened(self, connection: socket.socket) -> None:
        """Remember a connection and the thread that called, to end both when the server closes."""
        with self._lock:
            self._connections[connection] = threading.current_thread()

    def ended(self, connection: socket.socket) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._connections.pop(connection, None)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself
