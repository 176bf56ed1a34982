"""The service as code uses it: tests, and the command.

```python
with LoopbackService({"accounts/fireworks/models/qwen3-8b": "/path/to/a/tiny/model"}) as service:
    service.faults.add(Status(503, retry_after=1), times=2, where="POST .*/completions$")
    ...                                  # FIREWORKS_BASE_URL=service.base_url, any key
    assert not service.jobs              # nothing was left running
```
"""

import logging
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from distillkit_loopback.fireworks.checkpoints import Checkpoints
from distillkit_loopback.fireworks.completions import Completions
from distillkit_loopback.fireworks.deployments import Deployments, RunningDeployment
from distillkit_loopback.fireworks.faults import Fault
from distillkit_loopback.fireworks.hot_load import HotLoads
from distillkit_loopback.fireworks.jobs import RunningJob
from distillkit_loopback.fireworks.shapes import Shapes
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.fireworks.trainer import Trainers
from distillkit_loopback.hf.named_models import Models
from distillkit_loopback.transport.faults import Delay, Faults, GenerationConfig, Hangup, Status
from distillkit_loopback.transport.messages import Request, Response
from distillkit_loopback.transport.routes import Refused, dispatch
from distillkit_loopback.transport.server import Server

log = logging.getLogger(__name__)
REMEMBERED = 10_000
"""Requests."""
RETRIED = (408, 409, 425, 429)
"""The 4xx that a client tries again."""


class LoopbackService:
    """The Fireworks Training API on 127.0.0.1, backed by local models on the CPU.

    The same requests have the same responses. torch computes in one thread in this process until the service closes:
    how a sum is rounded depends on how many threads share it, and one flipped token makes another run of it.
    """

    def __init__(self, models: Models, *, context_length: int = 512, api_key: str | None = None, port: int = 0) -> None:
        """Listen; models are loaded when they are needed.

        Args:
            models: Model strings, as configs name them, to local directories or hub names: base models, anything else
                that is served from the start (`accounts/.../deployedModels/...`), and PEFT adapters for a warm start.
                Or a function that gives the directory of a name, None for one that the service does not have.
            context_length: What training shapes say, and completions keep to. In tokens.
            api_key: The one key that is let in; None: any.
            port: Where to listen on 127.0.0.1; 0: any that is free.

        Raises:
            OSError: if the port is taken.
        """
        self._server = Server(self._respond, port)
        self._api_key = api_key
        self._closing = threading.Event()
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(1)
        self._folder = tempfile.TemporaryDirectory(prefix="distillkit-loopback-")
        self._store = Store(models, Path(self._folder.name))
        self._trainers = Trainers(self._store, self._closing)
        self._deployments = Deployments(self._store)
        parts = (
            Shapes(context_length),
            self._trainers.jobs,
            Checkpoints(self._store, self._trainers.jobs),
            self._deployments,
            HotLoads(self._store, self._deployments),
            Completions(self._store, self._deployments, context_length),
            self._trainers,
        )
        self._routes = [route for part in parts for route in part.routes()]
        self.faults: Faults[Fault] = Faults()
        """The faults that are injected from now on."""
        self._requests: deque[Request] = deque(maxlen=REMEMBERED)
        self._server.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        """The value for `FIREWORKS_BASE_URL`."""

    def __enter__(self) -> Self:
        """The service, which listens already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the service, whatever happened in the block."""
        self.close()

    def close(self) -> None:
        """Stop responding and computing, and delete what was saved. A second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._trainers.close()
        self._server.close()
        self._folder.cleanup()
        torch.set_num_threads(self._threads_before)

    @property
    def requests(self) -> tuple[Request, ...]:
        """The last 10,000 requests, in the order of arrival."""
        return tuple(self._requests)

    @property
    def jobs(self) -> Mapping[str, RunningJob]:
        """The trainer jobs that cost money now, by id."""
        return self._trainers.jobs.running()

    @property
    def deployments(self) -> Mapping[str, RunningDeployment]:
        """The deployments that cost money now, by id; one that is scaled to zero does not."""
        return self._deployments.running()

    def load(self, model: str) -> None:
        """Read a model now, and not at the first request. Raises InputError if it cannot be read."""
        self._store.frozen(model)

    def path(self, model: str) -> Path:
        """The directory of a model that was given or promoted. Raises Refused for an unknown name."""
        return self._store.path(model)

    def _respond(self, request: Request, key: str | None) -> Response | None:
        self._requests.append(request)
        if not key or (self._api_key is not None and key != self._api_key):
            return Refused(401, "the API key is missing or wrong", "UNAUTHENTICATED").response()
        fault = self.faults.take(request)
        match fault:
            case Delay(seconds):
                self._closing.wait(seconds)
            case Status():
                return self._refuse(request, fault)
            case Hangup(applied=False):
                return None
            case GenerationConfig():
                request = fault.filled(request)
        response = self._dispatch(request, fault)
        return None if isinstance(fault, Hangup) else response

    def _refuse(self, request: Request, fault: Status) -> Response:
        if fault.status < 500 and fault.status not in RETRIED:
            self._trainers.models.skip(request.body)
        return Refused(fault.status, fault.message, "INJECTED").response(fault.headers)

    def _dispatch(self, request: Request, fault: Fault | None) -> Response:
        try:
            return dispatch(self._routes, request, fault)
        except Refused as refused:
            return refused.response()
        except Exception as error:
            log.exception("the loopback service failed at %s %s", request.method, request.path)
            # 422 is what no client tries again.
            return Refused(422, f"the loopback service: {type(error).__name__}: {error}", "INTERNAL").response()
