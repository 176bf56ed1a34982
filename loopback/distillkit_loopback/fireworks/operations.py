"""The operations of a client on a model that a trainer holds; the response of each is a future."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit_loopback.fireworks.datums import WireBatch, as_sent
from distillkit_loopback.fireworks.jobs import Job
from distillkit_loopback.fireworks.messages import Call
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.training.futures import Futures, InOrder, Worker
from distillkit_loopback.training.learner import AdamParams, Learner, Normalization
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import not_found

CROSS_JOB = re.compile(r"cross_job://([^/]+)/([^/]+)")


class LoraSettings(Body):
    """The adapter of a new model."""

    rank: int = 0
    alpha: int | None = None
    """None stands for twice the rank."""
    seed: int | None = None


class OfModel(Body):
    """The fields that the body of every operation on a model has."""

    model_id: str
    seq_id: int


class Forward(OfModel):
    """Data to take the loss and the logprobs of."""

    forward_input: WireBatch


class ForwardBackward(OfModel):
    """Data to take the gradient on."""

    forward_backward_input: WireBatch


class OptimStep(OfModel):
    """The body of a request for a step of the optimizer."""

    adam_params: AdamParams
    grad_accumulation_normalization: Normalization | None = None


class Saving(OfModel):
    """A checkpoint to write or read, by name."""

    path: str
    optimizer: bool = True


class LoadAdapter(OfModel):
    """The path of an adapter that the model starts from."""

    adapter_path: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a trainer holds."""

    job: Job
    base: str
    learner: Learner
    operations: InOrder

    @property
    def kind(self) -> str:
        """The end of its checkpoints' type."""
        return "LORA" if self.learner.is_lora else "BASE"


class Models:
    """The models of all trainers, and what is done with them."""

    def __init__(self, store: Store, futures: Futures, worker: Worker) -> None:
        """No trainer has a model yet."""
        self._store = store
        self._futures = futures
        self._worker = worker
        self._models: dict[str, Model] = {}

    def functions(self) -> Mapping[str, Callable[[Call], Response]]:
        """The endpoints of this part, by the last segment of the path."""
        return {
            "forward": self._forward,
            "forward_backward": self._forward_backward,
            "optim_step": self._optim_step,
            "save_weights": self._save,
            "load_weights": self._load,
            "load_adapter": self._load_adapter,
            "save_weights_for_sampler": self._snapshot,
        }

    def make(self, job: Job, model_id: str, base: str, lora: LoraSettings) -> None:
        """Load a new model from `base` with a LoRA, and keep it under `model_id`."""
        learner = Learner(self._store.load(base), lora.rank, lora.alpha or 2 * lora.rank, lora.seed or 0)
        self._models[model_id] = Model(job, base, learner, InOrder(job.job_id, self._futures, self._worker))

    def forget(self, model_id: str) -> None:
        """Unload a model; nothing happens for an unknown id."""
        self._models.pop(model_id, None)

    def forget_job(self, job_id: str) -> None:
        """A job has lost its machines: its models are gone, and whatever was under way."""
        for model_id, model in list(self._models.items()):
            if model.job.job_id == job_id:
                self.forget(model_id)
        self._futures.drop(job_id)

    def skip(self, body: JsonValue) -> None:
        """An operation was refused for good: do not wait for it."""
        if isinstance(body, dict) and isinstance(seq_id := body.get("seq_id"), int):
            model = self._models.get(str(body.get("model_id")))
            if model is not None:
                model.operations.skip(seq_id)

    def _model(self, body: OfModel) -> Model:
        model = self._models.get(body.model_id)
        if model is None:
            raise not_found(f"model {body.model_id!r}")
        return model

    def _submit(self, call: Call, body: OfModel, work: Callable[[], JsonValue]) -> Response:
        request_id = self._model(body).operations.add(body.seq_id, work, call.fault)
        return Response({"request_id": request_id, "model_id": body.model_id})

    def _forward(self, call: Call) -> Response:
        body = call.body(Forward)
        learner = self._model(body).learner
        return self._submit(call, body, lambda: as_sent(learner.forward(body.forward_input.read(learner.vocabulary))))

    def _forward_backward(self, call: Call) -> Response:
        body = call.body(ForwardBackward)
        learner, sent = self._model(body).learner, body.forward_backward_input
        return self._submit(call, body, lambda: as_sent(learner.forward_backward(sent.read(learner.vocabulary))))

    def _optim_step(self, call: Call) -> Response:
        body = call.body(OptimStep)
        learner, normalization = self._model(body).learner, body.grad_accumulation_normalization or "none"

        def step() -> JsonValue:
            norm = learner.optim_step(body.adam_params, normalization)
            return {"metrics": {"optim/lr": body.adam_params.learning_rate, "optim/grad_norm": norm}}

        return self._submit(call, body, step)

    def _save(self, call: Call) -> Response:
        body = call.body(Saving)
        model = self._model(body)

        def save() -> JsonValue:
            model.learner.save(self._store.state(model.job.job_id, body.path))
            model.job.checkpoints.append((body.path, f"CHECKPOINT_TYPE_TRAINING_{model.kind}"))
            return {"type": "save_weights", "path": body.path}

        return self._submit(call, body, save)

    def _load(self, call: Call) -> Response:
        body = call.body(Saving)
        model = self._model(body)

        def load() -> JsonValue:
            elsewhere = CROSS_JOB.fullmatch(body.path)
            job_id, name = elsewhere.groups() if elsewhere else (model.job.job_id, body.path)
            model.learner.load(self._store.state(job_id, name), optimizer=body.optimizer)
            return {"type": "load_weights", "path": body.path}

        return self._submit(call, body, load)

    def _load_adapter(self, call: Call) -> Response:
        body = call.body(LoadAdapter)
        learner = self._model(body).learner

        def load() -> JsonValue:
            learner.load_adapter(self._store.path(body.adapter_path))
            return {"type": "load_adapter", "model_id": body.model_id, "adapter_path": body.adapter_path}

        return self._submit(call, body, load)

    def _snapshot(self, call: Call) -> Response:
        body = call.body(Saving)
        model = self._model(body)

        def save() -> JsonValue:
            model.learner.snapshot(self._store.snapshot(model.job.job_id, body.path))
            model.job.checkpoints.append((body.path, f"CHECKPOINT_TYPE_INFERENCE_{model.kind}"))
            return {"type": "save_weights_for_sampler", "path": body.path}

        return self._submit(call, body, save)
