"""What clients do with a model: gradients, optimizer steps, saves and loads, in the order of `seq_id`."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import FloatArray
from distillkit_loopback.tinker.checkpoints import Checkpoint, Saving, expiry
from distillkit_loopback.tinker.faults import Fault, FewerLogprobs, MissingLogprobs, NaNLogprob, Vanishes
from distillkit_loopback.tinker.messages import SentBatch, encode_computed, inputs_of
from distillkit_loopback.tinker.models import TrainedModel, TrainedModels
from distillkit_loopback.tinker.routing import API, Call, Invalid, Route, Shared, promise, read
from distillkit_loopback.tinker.samplers import Samplers
from distillkit_loopback.training.datums import LOSSES, Batch, Computed
from distillkit_loopback.training.futures import Operation, Result
from distillkit_loopback.training.learner import AdamParams, Learner
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import Refused

Write = Callable[[Learner], None]


class OptimStep(Body):
    """The body of a request for a step of the optimizer."""

    model_id: str
    seq_id: int
    adam_params: AdamParams


class Save(Body):
    """The body of a request to save: `path` is a name; a snapshot to sample from has none, and a number instead."""

    model_id: str
    seq_id: int
    path: str | None = None
    sampling_session_seq_id: int | None = None
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: dict[str, str] | None = None


class Load(Body):
    """The body of a request to load: into a model that is there, or one that is made of what is loaded."""

    path: str
    optimizer: bool = True
    model_id: str | None = None
    seq_id: int = 1
    session_id: str | None = None
    model_seq_id: int = 0


class Operations:
    """The operations on all models."""

    def __init__(self, shared: Shared, models: TrainedModels, samplers: Samplers) -> None:
        """Snapshots to sample from go to `samplers`."""
        self._shared, self._models, self._samplers = shared, models, samplers

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        yield Route.to("POST", API + "forward_backward", self._forward_backward)
        yield Route.to("POST", API + "optim_step", self._optim_step)
        yield Route.to("POST", API + "save_weights", self._save)
        yield Route.to("POST", API + "save_weights_for_sampler", self._save_for_sampler)
        yield Route.to("POST", API + "load_weights", self._load)
        if self._shared.behavior.exports:
            yield Route.to("POST", API + "save_weights_external", self._save_external)

    def _submit(self, call: Call, model: TrainedModel, seq_id: int, work: Callable[[], Result]) -> Response:
        request_id = model.operations.add(seq_id, work, call.fault)
        return promise(request_id, model_id=model.model_id)

    def _forward_backward(self, call: Call) -> Response:
        sent = SentBatch.read(call.request.raw)
        model = self._models.get(sent.model_id)
        self._require_loss(sent)
        sums = self._shared.behavior.sums_losses

        def work() -> bytes:
            learner = model.trained()
            batch = sent.batch(learner.vocabulary)
            compute = learner.forward if sent.forward_only else learner.forward_backward
            return _as_sent(batch, compute(batch if sums else batch.averaged()), call.fault, sums=sums)

        return self._submit(call, model, sent.seq_id, work)

    def _require_loss(self, sent: SentBatch) -> None:
        known = self._shared.behavior.loss_options.get(sent.loss)
        if sent.loss not in LOSSES or known is None:
            what = f"the loopback service does not know the loss {sent.loss!r}; known: {', '.join(LOSSES)}"
        elif unknown := sorted(sent.options.keys() - known):
            what = f"loss_fn='{sent.loss}' does not accept loss_fn_config keys. Received: {unknown}."
        else:
            return
        if not self._shared.behavior.fails_by_status:
            raise Refused(400, what)
        tokens: JsonValue = [inputs_of(datum).tolist() for datum in sent.data]
        raise Invalid([{"type": "value_error", "loc": [], "msg": f"Value error, {what}", "input": {"data": tokens}}])

    def _optim_step(self, call: Call) -> Response:
        body = read(call, OptimStep)
        model = self._models.get(body.model_id)
        behavior = self._shared.behavior
        ignored = {} if behavior.clips_gradients else {"grad_clip_norm": 0.0}
        adam = body.adam_params.model_copy(update=ignored)

        def step() -> JsonValue:
            norm = model.trained().optim_step(adam, "none" if behavior.sums_losses else "num_sequences")
            model.steps += 1
            if behavior.sums_losses:
                return {"metrics": None}
            return {"metrics": {"skyrl.ai/grad_norm": norm, "skyrl.ai/learning_rate": adam.learning_rate}}

        return self._submit(call, model, body.seq_id, step)

    def _save(self, call: Call) -> Response:
        body = read(call, Save)
        if body.path is None:
            raise Refused(422, "path is needed")
        return self._saved(call, body, "weights", body.path, lambda path: {"type": "save_weights", "path": path})

    def _save_external(self, call: Call) -> Response:
        body = read(call, Save)
        if body.path is None:
            raise Refused(422, "path is needed")
        kind = "external_weights"
        return self._saved(call, body, kind, body.path, lambda path: {"type": "save_weights_external", "path": path})

    def _save_for_sampler(self, call: Call) -> Response:
        body = read(call, Save)
        named = body.path is not None
        if not named and body.sampling_session_seq_id is None:
            raise Refused(422, "Either 'path' or both 'sampling_session_seq_id' and 'seq_id' must be provided")
        name = body.path or f"ss{body.sampling_session_seq_id}_seq{body.seq_id}"

        def result(path: str) -> JsonValue:
            session = None if named else self._samplers.add(self._models.get(body.model_id).session_id, path)
            shown = path if named else None
            return {"type": "save_weights_for_sampler", "path": shown, "sampling_session_id": session}

        return self._saved(call, body, "sampler_weights", name, result)

    def _saved(self, call: Call, body: Save, kind: str, name: str, result: Callable[[str], JsonValue]) -> Response:
        model = self._models.get(body.model_id)
        behavior, checkpoints = self._shared.behavior, self._shared.checkpoints
        known = model.operations.known(body.seq_id) if behavior.knows_repeats else None
        if known is not None:
            return promise(known, model_id=model.model_id)
        overwrite = body.overwrite and behavior.keeps_options
        expires = expiry(body.ttl_seconds) if behavior.keeps_options else None
        folder = checkpoints.reserve(model.model_id, kind, name, overwrite=overwrite)

        def save() -> JsonValue:
            checkpoints.empty(folder)
            learner = model.trained()
            learner.save(folder) if kind == "weights" else learner.save_adapter(folder)
            saving = Saving(
                base_model=model.base_model,
                lora=model.lora,
                time=datetime.now(UTC),
                expires_at=expires,
                ephemeral=body.path is None,
                user_metadata=body.user_metadata if behavior.keeps_options else None,
            )
            checkpoints.release(folder, None if isinstance(call.fault, Vanishes) else saving)
            return result(f"tinker://{model.model_id}/{kind}/{name}")

        return self._submit(call, model, body.seq_id, save)

    def _load(self, call: Call) -> Response:
        body = read(call, Load)
        if body.model_id is None:
            return self._load_new(call, body)
        model = self._models.get(body.model_id)
        known = model.operations.known(body.seq_id)
        if known is not None and self._shared.behavior.knows_repeats:
            return promise(known, model_id=model.model_id)
        if model.operations.begun:
            raise Refused(400, f"LoadWeights is not permitted with seq_id {body.seq_id}")
        checkpoint = self._shared.checkpoints.find(body.path, "weights")
        return self._submit(call, model, body.seq_id, lambda: _load(model, checkpoint, optimizer=body.optimizer))

    def _load_new(self, call: Call, body: Load) -> Response:
        if not self._shared.behavior.loads_new_models or body.session_id is None:
            missing: Mapping[str, JsonValue] = {"type": "missing", "loc": ["body", "model_id"], "msg": "Field required"}
            raise Invalid([{**missing, "input": call.request.body}])
        checkpoint = self._shared.checkpoints.find(body.path, "weights")
        saving = checkpoint.saving
        model = self._models.add(body.session_id, body.model_seq_id, saving.base_model, saving.lora)

        def make() -> JsonValue:
            self._models.make(model)
            return _load(model, checkpoint, optimizer=body.optimizer)

        request_id = self._shared.futures.make(body.session_id)
        return self._models.promised(model, Operation(request_id, make, call.fault))


def _load(model: TrainedModel, checkpoint: Checkpoint, *, optimizer: bool) -> JsonValue:
    model.trained().load(checkpoint.folder, optimizer=optimizer)
    return {"type": "load_weights", "path": checkpoint.path, "model_id": model.model_id}


def _as_sent(batch: Batch, computed: Computed, fault: Fault | None, *, sums: bool) -> bytes:
    """The arrays of each datum and the metrics, as one server or the other has them."""
    logprobs = [_distorted(row.numpy(), fault) for row in computed.logprobs]
    if sums:
        total = np.nan if isinstance(fault, NaNLogprob) else computed.total
        data = [{} if row is None else {"logprobs": row} for row in logprobs]
        return encode_computed("TensorDictLossReturn", data, {"loss:sum": total})
    data = []
    for datum, losses, row in zip(batch.data, computed.losses, logprobs, strict=True):
        elementwise = {"elementwise_loss": losses.numpy() * datum.arrays["weights"]}
        data.append(elementwise if row is None else {**elementwise, "logprobs": row})
    return encode_computed("scalar", data, {})


def _distorted(logprobs: FloatArray, fault: Fault | None) -> FloatArray | None:
    match fault:
        case MissingLogprobs():
            return None
        case FewerLogprobs():
            return logprobs[:-1]
        case NaNLogprob():
            return np.full_like(logprobs, np.nan)
    return logprobs
