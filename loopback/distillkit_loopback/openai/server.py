"""The server as code uses it: tests, benchmarks, and the command.

```python
with LoopbackServer(CategoricalModel(), delay=0.05) as server:
    server.faults.add(Status(503, retry_after=1.5), times=2, where="/v1/completions$")
    ...                                              # base URL: server.url
    assert server.traffic.most_at_once <= 8
```
"""

import json
import logging
import threading
from contextlib import nullcontext
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from distillkit_loopback.openai.catalogue import Catalogue
from distillkit_loopback.openai.engine import Engine
from distillkit_loopback.openai.errors import Refused
from distillkit_loopback.openai.faults import Fault, Garbage, Hang, ShortBody
from distillkit_loopback.openai.flavors import Flavor, routes_of
from distillkit_loopback.openai.handler import Hanging, LocalServer
from distillkit_loopback.openai.models import Model
from distillkit_loopback.openai.routes import RawResponse
from distillkit_loopback.transport.faults import Delay, Faults, GenerationConfig, Hangup, Status
from distillkit_loopback.transport.messages import Request, Response
from distillkit_loopback.transport.traffic import Traffic

log = logging.getLogger(__name__)
COMPUTES = ("/v1/completions", "/inference/v1/generate", "/generate")
"""What `delay` is for: the rest of a real server responds at once too."""


class LoopbackServer:
    """A server on 127.0.0.1. It can be stopped and started again on the same port, without what was loaded into it."""

    def __init__(
        self,
        model: Model,
        *,
        name: str = "loopback",
        flavor: Flavor | None = None,
        faults: Faults[Fault] | None = None,
        delay: float = 0.0,
        api_key: str | None = None,
        context_length: int = 1024,
        max_logprobs: int = 20,
        processed_logprobs: bool = False,
        port: int = 0,
        remembered: int = 1000,
    ) -> None:
        """Nothing listens yet.

        Args:
            model: The base model.
            name: What it is called in `model` fields.
            flavor: Its dialects; None: vLLM's.
            faults: A queue of faults, shared with another server for example; None: a new, empty one.
            delay: Seconds before each completion.
            api_key: The bearer token without which the response is 401, except to `/health`; None: anyone is let in.
            context_length: Prompt and completion, in tokens.
            max_logprobs: How many top-k candidates may be requested for a token.
            processed_logprobs: As with vLLM's `--logprobs-mode processed_logprobs`: a completion's logprobs are
                those at the temperature that sampled it.
            port: 0: any that is free at the first start.
            remembered: How many requests `traffic` keeps whole.
        """
        self.faults = faults or Faults[Fault]()
        self.traffic = Traffic(remembered)
        self.catalogue = Catalogue(name, model, context_length)
        self._delay, self._api_key, self._port = delay, api_key, port
        self._closing = threading.Event()
        self._server: LocalServer | None = None
        self._engine = Engine(self.catalogue, max_logprobs, processed=processed_logprobs)
        self._routes = routes_of(self._engine, flavor or Flavor())

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`. Raises RuntimeError before the first start, unless a port was given."""
        if not self._port:
            raise RuntimeError("the loopback server has no port before its first start()")
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        """Start the server, and return it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server, whatever happened in the block."""
        self.stop()

    def start(self) -> None:
        """Listen; nothing changes if it does already. Raises OSError if the port is taken."""
        if self._server is None:
            self._closing = threading.Event()
            self._server = LocalServer(self._respond, self._port, self._closing)
            self._port = self._server.port
            self._server.start()

    def stop(self) -> None:
        """As if killed: connections end, adapters are lost. A second call does nothing."""
        self._closing.set()
        self._engine.gate.resume()
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self.catalogue.forget()

    def _respond(self, request: Request, key: str | None) -> Response | None:
        closing = self._closing
        with self.traffic.serving(request):
            if self._api_key is not None and key != self._api_key and request.path != "/health":
                return Response({"error": "Unauthorized"}, 401)
            fault = self.faults.take(request)
            match fault:
                case Status():
                    return _status(fault)
                case Hang():
                    return Hanging(None)
                case Hangup(applied=False):
                    return None
                case Garbage():
                    return RawResponse(b"<html>\x00 this is not JSON", content_type="application/json")
                case Delay(seconds):
                    closing.wait(seconds)
                case GenerationConfig():
                    request = fault.filled(request)
            with self._engine.gate.passing() if request.path in COMPUTES else nullcontext():
                if self._delay and request.path in COMPUTES:
                    closing.wait(self._delay)
                if closing.is_set():
                    return None
                response = self._dispatch(request, fault)
        match fault:
            case Hangup():
                return None
            case ShortBody():
                return _truncated(response)
        return response

    def _dispatch(self, request: Request, fault: Fault | None) -> Response:
        function = self._routes.get((request.method, request.path))
        if function is None:
            return Response({"detail": "Not Found"}, 404)
        try:
            return function(request, fault)
        except Refused as refused:
            return refused.response()
        except Exception as error:
            log.exception("the loopback server failed at %s %s", request.method, request.path)
            return Refused(500, f"{type(error).__name__}: {error}", "InternalServerError").response()


def _status(fault: Status) -> Response:
    body: JsonValue = fault.body
    if body is None:
        body = {"error": {"message": fault.message, "type": "Loopback", "param": None, "code": fault.status}}
    return Response(body, fault.status, fault.headers)


def _truncated(response: Response) -> Response:
    body = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
    return RawResponse(body, response.status, response.headers, "application/json", cut=True)
