"""From requests to the service's parts, and the few endpoints that belong to none."""

from collections.abc import Callable, Iterable

from distillkit_loopback.tinker.description import description
from distillkit_loopback.tinker.faults import Fault
from distillkit_loopback.tinker.messages import SentBatch
from distillkit_loopback.tinker.models import TrainedModels
from distillkit_loopback.tinker.operations import Operations
from distillkit_loopback.tinker.records import Records
from distillkit_loopback.tinker.routing import API, Call, Route, Shared, detail, read
from distillkit_loopback.tinker.samplers import Samplers
from distillkit_loopback.tinker.sessions import Sessions
from distillkit_loopback.transport.messages import Body, Request, Response
from distillkit_loopback.transport.routes import Refused, dispatch
from distillkit_loopback.transport.server import PROTOBUF

LONG_POLL_S = 10.0
"""Clients ask again at once after `try_again`."""


class Retrieve(Body):
    """The body of a request for the result of an operation."""

    request_id: str


class Gateway:
    """All that is lost when the server dies: sessions, models, sampling sessions, results."""

    def __init__(self, shared: Shared, context_length: int, session_timeout: float, tempered: bool) -> None:
        """Nothing is open yet."""
        self._shared, self._context_length = shared, context_length
        self.futures = shared.futures
        self.sessions = Sessions(shared.behavior, session_timeout, self._session_ended)
        self.models = TrainedModels(shared, self.sessions)
        self.samplers = Samplers(shared, self.sessions, self.models, context_length, tempered=tempered)
        parts = (self.sessions, Operations(shared, self.models, self.samplers), Records(shared), self.models)
        self._routes = [*self._own_routes(), *self.samplers.routes()]
        self._routes += [route for part in parts for route in part.routes()]

    @property
    def closed(self) -> bool:
        """Whether the server has died."""
        return self._shared.closing.is_set()

    def close(self) -> None:
        """Wake requests that wait for results, end the worker thread, and lose what is not saved."""
        self._shared.closing.set()
        self._shared.futures.close()
        self._shared.worker.close()
        self.models.forget()
        self.samplers.forget()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the server dies."""
        self._shared.closing.wait(seconds)

    def dispatch(self, request: Request, fault: Fault | None) -> Response:
        """The response of the part that the request is for. Raises Refused."""
        return dispatch(self._routes, request, fault)

    def skip(self, request: Request) -> None:
        """An operation was refused for good: those of its model that come after it do not wait for it."""
        if request.raw:
            try:
                sent = SentBatch.read(request.raw)
            except Refused:
                return
            self.models.skip(sent.model_id, sent.seq_id)
        elif isinstance(seq_id := request.fields.get("seq_id"), int):
            self.models.skip(str(request.fields.get("model_id")), seq_id)

    def _session_ended(self, session_id: str) -> None:
        self.models.forget(session_id)
        self.samplers.forget(session_id)

    def _own_routes(self) -> Iterable[Route]:
        gets: dict[str, Callable[[Call], Response]] = {
            "healthz": lambda call: Response({"status": "ok"}),
            "get_server_capabilities": self._capabilities,
        }
        posts: dict[str, Callable[[Call], Response]] = {
            "client/config": lambda call: Response({"pjwt_auth_enabled": False}),
            "telemetry": lambda call: Response({"status": "accepted"}),
            "retrieve_future": self._retrieve,
        }
        if self._shared.behavior.knows_repeats:
            posts["client/dynamic_config"] = lambda call: Response({"sample_cancel_enabled": True})
        if self._shared.behavior.describes_itself:
            yield Route.to("GET", "/openapi.json", lambda call: Response(description()))
        for method, functions in (("GET", gets), ("POST", posts)):
            for name, function in functions.items():
                yield Route.to(method, API + name, function)

    def _capabilities(self, call: Call) -> Response:
        if not self._shared.behavior.knows_models:
            return Response({"supported_models": [{"model_name": name} for name in self._shared.served[:1]]})
        known = {"max_context_length": self._context_length, "trainable": True, "sampleable": True}
        return Response({"supported_models": [{"model_name": name, **known} for name in self._shared.served]})

    def _retrieve(self, call: Call) -> Response:
        request_id = read(call, Retrieve).request_id
        result = self._shared.futures.wait(request_id, LONG_POLL_S)
        if result is None:
            return Response({"type": "try_again", "request_id": request_id, "queue_state": "active"})
        if isinstance(result, bytes):
            return Response(result, headers={"content-type": PROTOBUF})
        if self._shared.behavior.fails_by_status and isinstance(result, dict) and "error" in result:
            return detail(400, result["error"])
        return Response(result)
