"""The service as code uses it: tests, and the command.

```python
with TinkerService({"org/student": "/path/to/a/tiny/model"}, kind="skyrl") as service:
    service.faults.add(Status(503), times=2, where="POST .*/asample$")
    ...                                  # tinker.ServiceClient(base_url=service.base_url, api_key="tml-any")
    assert not service.sessions          # nothing was left running
```
"""

import logging
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch

from distillkit_loopback.hf.named_models import NamedModels
from distillkit_loopback.tinker.behavior import KINDS
from distillkit_loopback.tinker.checkpoints import Checkpoint, Checkpoints
from distillkit_loopback.tinker.faults import Dies, Fault
from distillkit_loopback.tinker.gateway import Gateway
from distillkit_loopback.tinker.models import TrainedModel
from distillkit_loopback.tinker.routing import Invalid, Shared, detail
from distillkit_loopback.tinker.sessions import Session
from distillkit_loopback.training.futures import Futures, Worker
from distillkit_loopback.transport.faults import Delay, Faults, Hangup, Status
from distillkit_loopback.transport.messages import Request, Response
from distillkit_loopback.transport.routes import Refused
from distillkit_loopback.transport.server import Server
from distillkit_loopback.transport.traffic import Traffic

log = logging.getLogger(__name__)
REMEMBERED = 10_000
"""Requests."""
RETRIED = (408, 429)
"""The 4xx that a client tries again with the same operation."""


class TinkerService:
    """The Tinker protocol on 127.0.0.1, backed by local models on the CPU.

    The same requests have the same responses, but for ids. torch computes in one thread in this process until the
    service closes: how a sum is rounded depends on how many threads share it.
    """

    def __init__(
        self,
        models: Mapping[str, str | Path],
        *,
        kind: Literal["hosted", "skyrl"] = "hosted",
        tempered: bool = False,
        context_length: int = 512,
        session_timeout: float = 60.0,
        folder: Path | None = None,
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        """Listen; models are loaded when they are needed. Raises OSError if the port is taken.

        Args:
            models: Base models by name; of kind `skyrl` the first one is trained whatever name is asked for.
            kind: Which server's behavior: `behavior.Behavior` says what differs.
            tempered: Logprobs of completions are those at the temperature that sampled them, not at 1.
            context_length: The most tokens of prompt and completion.
            session_timeout: Seconds without a heartbeat after which a session ends.
            folder: Where checkpoints stay when the service closes, for another service; None: they go with it.
            api_key: The one key that is let in; None: any.
            port: Where to listen on 127.0.0.1; 0: any that is free.
        """
        self.kind = kind
        """`hosted` or `skyrl`."""
        self._behavior, self._api_key, self._port = KINDS[kind], api_key, port
        self._options = (context_length, session_timeout, tempered)
        self._served = tuple(models)
        self._models = NamedModels(models)
        self._own_folder = tempfile.TemporaryDirectory(prefix="distillkit-loopback-")
        self._checkpoints = Checkpoints(folder or Path(self._own_folder.name))
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(1)
        self.faults: Faults[Fault] = Faults()
        """The faults that are injected from now on."""
        self.traffic = Traffic(REMEMBERED)
        """Counts of requests by path, and the last ones whole; no request holds its key."""
        self._server: Server | None = None
        self._lock = threading.Lock()
        self._gateway = self._new_gateway()
        self.start()

    def _new_gateway(self) -> Gateway:
        futures = Futures()
        closing = threading.Event()
        shared = Shared(
            self._behavior, self._models, self._served, self._checkpoints, futures, Worker(futures), closing
        )
        return Gateway(shared, *self._options)

    @property
    def base_url(self) -> str:
        """The value for `base_url` of clients, and for `TINKER_BASE_URL`."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        """The service, which listens already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the service, whatever happened in the block."""
        self.close()

    def start(self) -> None:
        """Listen again after `stop`, on the same port. Raises OSError if it is taken."""
        with self._lock:
            if self._server is None:
                if self._gateway.closed:
                    self._gateway = self._new_gateway()
                self._server = Server(self._respond, self._port)
                self._port = int(self._server.server_address[1])
                self._server.start()

    def stop(self) -> None:
        """As if killed: nothing listens, connections end, sessions, models and snapshots are lost; checkpoints stay."""
        with self._lock:
            server, self._server = self._server, None
            if server is not None:
                self._gateway.close()
                server.close()

    def close(self) -> None:
        """Stop, and delete what was saved unless a folder was given. A second call does nothing."""
        self.stop()
        self._own_folder.cleanup()
        torch.set_num_threads(self._threads_before)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The sessions that are open, by id."""
        return self._gateway.sessions.open()

    @property
    def finished(self) -> Mapping[str, str]:
        """How sessions ended, by id: `success`, `errored`, `interrupted`, or `silent`."""
        return self._gateway.sessions.finished()

    @property
    def models(self) -> Mapping[str, TrainedModel]:
        """The models that are trained now, by id."""
        return self._gateway.models.all()

    @property
    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """What runs have saved by a name, by path, oldest first."""
        return {each.path: each for each in self._checkpoints.all() if not each.saving.ephemeral}

    @property
    def snapshots(self) -> Mapping[str, Checkpoint]:
        """What was saved only to be sampled from, by path, oldest first."""
        return {each.path: each for each in self._checkpoints.all() if each.saving.ephemeral}

    @property
    def unfinished(self) -> int:
        """How many operations have no result yet."""
        return self._gateway.futures.unfinished()

    @property
    def cancelled(self) -> frozenset[str]:
        """The sample requests that clients gave up, by request id."""
        return frozenset(self._gateway.samplers.cancelled)

    def delete(self, path: str) -> None:
        """Lose a checkpoint. Raises Refused for one that is not there."""
        self._checkpoints.delete(self._checkpoints.find(path, "weights", "sampler_weights", "external_weights"))

    def load(self, model: str) -> None:
        """Read a model now, and not at the first request. Raises InputError if it cannot be read."""
        self._models.frozen(model)

    def _respond(self, request: Request, key: str | None) -> Response | None:
        gateway = self._gateway
        with self.traffic.serving(request):
            wrong = key != self._api_key if self._api_key is not None else not key and self._behavior.needs_key
            if wrong and not request.path.startswith("/download/"):
                return detail(401, "Invalid or missing API key")
            fault = self.faults.take(request)
            match fault:
                case Delay(seconds):
                    gateway.wait(seconds)
                case Status():
                    if fault.status < 500 and fault.status not in RETRIED:
                        gateway.skip(request)
                    body = fault.message if fault.body is None else fault.body
                    return detail(fault.status, body, fault.headers)
                case Hangup(applied=False):
                    return None
                case Dies():
                    self.stop()
                    return None
            response = self._dispatch(gateway, request, fault)
            return None if isinstance(fault, Hangup) or gateway.closed else response

    def _dispatch(self, gateway: Gateway, request: Request, fault: Fault | None) -> Response:
        try:
            return gateway.dispatch(request, fault)
        except Refused as refused:
            gateway.skip(request)
            return detail(refused.status, refused.detail if isinstance(refused, Invalid) else refused.message)
        except Exception as error:
            log.exception("the loopback service failed at %s %s", request.method, request.path)
            # 422 is what no client tries again.
            return detail(422, f"the loopback service: {type(error).__name__}: {error}")
