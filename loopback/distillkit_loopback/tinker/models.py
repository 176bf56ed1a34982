"""The models that sessions train: made, described, and gone with their session."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from secrets import randbelow
from uuid import uuid4

from pydantic import JsonValue

from distillkit_loopback.tinker.lora_settings import ALPHA, LoraSettings
from distillkit_loopback.tinker.routing import API, Call, Route, Shared, promise, read
from distillkit_loopback.tinker.sessions import Sessions
from distillkit_loopback.training.futures import InOrder, Operation
from distillkit_loopback.training.learner import Learner
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import Refused


class NewModel(Body):
    """The body of a request to make a model."""

    session_id: str
    model_seq_id: int = 0
    base_model: str
    lora_config: LoraSettings
    user_metadata: dict[str, JsonValue] | None = None


class OfModel(Body):
    """The body of a request about a model."""

    model_id: str


@dataclass(slots=True)
class TrainedModel:
    """One model of a session."""

    model_id: str
    session_id: str
    base_model: str
    """As it was asked for."""
    lora: LoraSettings
    operations: InOrder
    learner: Learner | None = None
    """None: it is being made, or could not be."""
    steps: int = 0
    """Of the optimizer, so far."""

    def trained(self) -> Learner:
        """What operations work on. Raises ValueError if it could not be made."""
        if self.learner is None:
            raise ValueError(f"Model {self.model_id} not loaded")
        return self.learner


class TrainedModels:
    """All models that are being trained."""

    def __init__(self, shared: Shared, sessions: Sessions) -> None:
        """No model yet."""
        self._shared, self._sessions = shared, sessions
        self._lock = threading.RLock()
        self._models: dict[str, TrainedModel] = {}
        self._promised: dict[str, str] = {}
        """Model id to the request id of its making."""

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        yield Route.to("POST", API + "create_model", self._create)
        yield Route.to("POST", API + "get_info", self._info)
        yield Route.to("POST", API + "unload_model", self._unload)
        yield Route.to("GET", API + "training_runs", self._list)
        yield Route.to("GET", API + "training_runs/{run+}", self._show_run)

    def all(self) -> Mapping[str, TrainedModel]:
        """The models of sessions that go on, by id."""
        self._sessions.open()
        with self._lock:
            return dict(self._models)

    def get(self, model_id: str) -> TrainedModel:
        """Raises Refused with 404 for an unknown model, or one whose session has ended."""
        found = self.all().get(model_id)
        if found is None:
            raise Refused(404, "Model not found")
        return found

    def forget(self, session_id: str | None = None) -> None:
        """The session has ended (None: all have): its models are gone, and whatever was under way."""
        with self._lock:
            for model in list(self._models.values()):
                if session_id in (None, model.session_id):
                    del self._models[model.model_id]
                    self._shared.futures.drop(model.session_id)
                    for checkpoint in self._shared.checkpoints.all(model.model_id):
                        if checkpoint.saving.ephemeral:
                            self._shared.checkpoints.delete(checkpoint)

    def skip(self, model_id: str, seq_id: int) -> None:
        """An operation was refused for good: those after it do not wait for it."""
        if model_id in self._models:
            self._models[model_id].operations.skip(seq_id)

    def add(self, session_id: str, number: int, base_model: str, lora: LoraSettings) -> TrainedModel:
        """A new model of a session, without weights yet. Raises Refused for an unknown base, an ended session."""
        self._shared.base(base_model)
        self._sessions.require(session_id)
        if self._shared.behavior.knows_models and lora.rank & (lora.rank - 1):
            raise Refused(400, f"lora rank {lora.rank} is not a power of 2")
        repeats = self._shared.behavior.knows_repeats
        model_id = f"{session_id}:train:{number}" if repeats else f"model_{uuid4().hex[:8]}"
        operations = InOrder(session_id, self._shared.futures, self._shared.worker)
        with self._lock:
            return self._models.setdefault(model_id, TrainedModel(model_id, session_id, base_model, lora, operations))

    def make(self, model: TrainedModel) -> None:
        """Give the model its weights: the base's, and a new adapter."""
        base = self._shared.models.load(self._shared.base(model.base_model))
        seed = randbelow(2**31) if model.lora.seed is None else model.lora.seed
        model.learner = Learner(base, model.lora.rank, ALPHA, seed, model.lora.layers(base))

    def promised(self, model: TrainedModel, operation: Operation) -> Response:
        """Have the model made, once."""
        with self._lock:
            if model.model_id not in self._promised:
                self._promised[model.model_id] = operation.request_id
                self._shared.worker.submit(operation)
            return promise(self._promised[model.model_id], model_id=model.model_id)

    def _create(self, call: Call) -> Response:
        new = read(call, NewModel)
        lora = new.lora_config
        if not self._shared.behavior.knows_models:  # all layers but the head, whatever is asked for
            lora = LoraSettings(rank=lora.rank, seed=lora.seed, train_unembed=False)
        model = self.add(new.session_id, new.model_seq_id, new.base_model, lora)

        def create() -> JsonValue:
            self.make(model)
            return {"type": "create_model", "model_id": model.model_id}

        request_id = self._shared.futures.make(new.session_id)
        return self.promised(model, Operation(request_id, create, call.fault))

    def _info(self, call: Call) -> Response:
        model = self.get(read(call, OfModel).model_id)
        if not self._shared.behavior.knows_models:
            data: JsonValue = {
                "base_model": model.base_model,
                "lora_config": {"rank": model.lora.rank, "seed": None},
                "model_name": model.base_model,
            }
            return Response({"model_id": model.model_id, "status": "created", "model_data": data})
        data = {"arch": "loopback", "model_name": model.base_model, "tokenizer_id": model.base_model}
        return Response(
            {
                "type": "get_info",
                "model_id": model.model_id,
                "model_data": data,
                "model_name": model.base_model,
                "is_lora": True,
                "lora_rank": model.lora.rank,
            }
        )

    def _unload(self, call: Call) -> Response:
        model = self.get(read(call, OfModel).model_id)
        with self._lock:
            self._models.pop(model.model_id, None)
        request_id = self._shared.futures.make(model.session_id)
        self._shared.futures.finish(request_id, {"type": "unload_model", "model_id": model.model_id})
        return promise(request_id, model_id=model.model_id)

    def _list(self, call: Call) -> Response:
        runs: list[JsonValue] = [self._run(model) for model in self.all().values()]
        cursor: JsonValue = {"offset": 0, "limit": len(runs), "total_count": len(runs)}
        return Response({"training_runs": runs, "cursor": cursor})

    def _show_run(self, call: Call) -> Response:
        return Response(self._run(self.get(call.names["run"])))

    def _run(self, model: TrainedModel) -> JsonValue:
        return {
            "training_run_id": model.model_id,
            "base_model": model.base_model,
            "model_owner": "loopback",
            "is_lora": True,
            "lora_rank": model.lora.rank,
            "last_request_time": "2026-01-01T00:00:00Z",
        }
