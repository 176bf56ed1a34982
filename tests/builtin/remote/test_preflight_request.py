import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from builtin.remote.service import A, B
from distillkit.errors import InputError
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.preflight_request import send_preflight_request

KEY = "sk-0123456789-very-secret"


def ask(*responses: httpx.Response | Exception, key: str | None = None):
    left = list(responses)

    def handle(request: httpx.Request) -> httpx.Response:
        response = left.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    options = RemoteOptions(base_url=(A, B)[: len(responses)], api_key_env=key)
    return send_preflight_request(options, "/v1/models", transport=httpx.MockTransport(handle))


def test_the_first_replica_that_responds_is_enough() -> None:
    answer = ask(httpx.ConnectError("refused"), httpx.Response(200, json={"data": []}))
    assert (answer.root, answer.value) == (B, {"data": []})


def test_where_none_responds_each_is_named_with_what_happened() -> None:
    with pytest.raises(InputError) as caught:
        ask(httpx.ConnectTimeout("timed out"), httpx.Response(503, text="loading"))
    assert str(caught.value).splitlines() == [
        f"{A}/v1/models: no answer within 10 s; is the service up?",
        f"{B}/v1/models: HTTP 503: loading",
    ]


def test_a_key_that_is_refused_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with pytest.raises(InputError, match=r"HTTP 401: bad key \*\*\*; is \$TEACHER_KEY the right key\?") as caught:
        ask(httpx.Response(401, json={"message": f"bad key {KEY}"}), key="TEACHER_KEY")
    assert KEY not in str(caught.value)
    with pytest.raises(InputError, match="set api_key_env"):
        ask(httpx.Response(403))


def test_another_kind_of_service_is_suspected() -> None:
    with pytest.raises(InputError, match="this kind of service"):
        ask(httpx.Response(404))


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"data": [1]}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def test_over_a_real_connection(server: ThreadingHTTPServer) -> None:
    options = RemoteOptions(base_url=f"http://127.0.0.1:{server.server_port}/v1")
    assert send_preflight_request(options, "/v1/models").value == {"data": [1]}


def test_a_refused_connection_and_a_service_without_tls(server: ThreadingHTTPServer) -> None:
    port = server.server_port
    with pytest.raises(
        InputError, match=r"SSL.*; this is what https says to a server that speaks http: begin base_url"
    ):
        send_preflight_request(RemoteOptions(base_url=f"https://127.0.0.1:{port}"), "/v1/models")
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match=rf"127.0.0.1:{port}/v1/models: connection refused; is the service up"):
        send_preflight_request(RemoteOptions(base_url=f"http://127.0.0.1:{port}"), "/v1/models")


def test_a_certificate_that_does_not_verify_leads_to_verify_tls() -> None:
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
    error.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    with pytest.raises(InputError, match="verify_tls takes the path"):
        ask(error)
