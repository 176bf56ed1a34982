"""Sampling sessions, and the requests for completions and scores in them."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from secrets import randbelow
from typing import cast
from uuid import uuid4

from peft import PeftModel, set_peft_model_state_dict
from pydantic import JsonValue
from safetensors.torch import load_file
from transformers import PreTrainedModel

from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.tinker.checkpoints import Checkpoint
from distillkit_loopback.tinker.faults import NoSequenceIds
from distillkit_loopback.tinker.lora_settings import ALPHA, LoraSettings
from distillkit_loopback.tinker.models import TrainedModels
from distillkit_loopback.tinker.routing import API, Call, Invalid, Route, Shared, promise, read
from distillkit_loopback.tinker.sampling import SampleBody, Sampler
from distillkit_loopback.tinker.sessions import Sessions
from distillkit_loopback.training.futures import Operation
from distillkit_loopback.training.learner import lora
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import Refused

ADAPTER = "adapter_model.safetensors"


class NewSampler(Body):
    """The body of a request for a sampling session."""

    session_id: str
    sampling_session_seq_id: int
    base_model: str | None = None
    model_path: str | None = None


class Cancel(Body):
    """The body of a request to give an operation up."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Source:
    """What a sampling session samples from."""

    session_id: str
    base_model: str | None
    model_path: str | None


@dataclass(slots=True)
class LoadedAdapter:
    """A copy of a base model whose adapter's weights are exchanged; one for each shape of an adapter."""

    adapted: PeftModel
    model: CausalLM
    version: str = ""


class Samplers:
    """All sampling sessions."""

    def __init__(
        self, shared: Shared, sessions: Sessions, models: TrainedModels, context_length: int, *, tempered: bool
    ) -> None:
        """`context_length`: the most tokens of prompt and completion."""
        self._shared, self._sessions, self._models = shared, sessions, models
        self._context_length, self._tempered = context_length, tempered
        self._lock = threading.Lock()
        self._sources: dict[str, Source] = {}
        self._promised: dict[tuple[str, int], str] = {}
        self._adapters: dict[tuple[str, LoraSettings], LoadedAdapter] = {}
        self.cancelled: set[str] = set()
        """The request ids that clients gave up."""

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        yield Route.to("POST", API + "create_sampling_session", self._create)
        yield Route.to("GET", API + "samplers/{sampler}", self._show)
        yield Route.to("POST", API + "asample", self._sample)
        if self._shared.behavior.knows_repeats:
            yield Route.to("POST", API + "cancel_future", self._cancel)

    def add(self, session_id: str, path: str) -> str:
        """A sampling session of what was just saved."""
        return self._new(Source(session_id, None, path))

    def forget(self, session_id: str | None = None) -> None:
        """The session has ended (None: all have): nothing can be sampled in it."""
        with self._lock:
            kept = {name: each for name, each in self._sources.items() if session_id not in (None, each.session_id)}
            self._sources = kept

    def _new(self, source: Source) -> str:
        sampler_id = f"sampling_{uuid4().hex[:8]}"
        with self._lock:
            self._sources[sampler_id] = source
        return sampler_id

    def _source(self, sampler_id: str) -> Source:
        if sampler_id not in self._sources:
            raise Refused(404, "Sampling session not found")
        return self._sources[sampler_id]

    def _create(self, call: Call) -> Response:
        new = read(call, NewSampler)
        self._sessions.require(new.session_id)
        if (new.base_model is None) == (new.model_path is None):
            raise Refused(400, "Exactly one of base_model or model_path must be provided")
        if self._shared.behavior.knows_models:
            if new.model_path is not None:
                self._checkpoint(new.model_path)
            elif new.base_model is not None:
                self._shared.base(new.base_model)
        sampler_id = self._new(Source(new.session_id, new.base_model, new.model_path))
        return Response({"type": "create_sampling_session", "sampling_session_id": sampler_id})

    def _checkpoint(self, path: str) -> Checkpoint:
        return self._shared.checkpoints.find(path, "sampler_weights")

    def _show(self, call: Call) -> Response:
        source = self._source(call.names["sampler"])
        base = source.base_model
        if base is None:
            base = self._checkpoint(source.model_path or "").saving.base_model
        return Response({"sampler_id": call.names["sampler"], "base_model": base, "model_path": source.model_path})

    def _cancel(self, call: Call) -> Response:
        self.cancelled.add(read(call, Cancel).request_id)
        return Response(None, 204)

    def _sample(self, call: Call) -> Response:
        body = read(call, SampleBody)
        source = Source("", body.base_model, body.model_path)
        if body.sampling_session_id is not None:
            source = self._source(body.sampling_session_id)
        self._require_possible(body)
        checkpoint = None if source.base_model is not None else self._checkpoint(source.model_path or "")
        seed = randbelow(2**31) if body.sampling_params.seed is None else body.sampling_params.seed

        def sample() -> bytes:
            model = self._base(source.base_model) if checkpoint is None else self._adapted(checkpoint)
            sampler = Sampler(model, self._shared.behavior, self._tempered)
            return sampler.sample(body, seed, call.fault).encoded()

        request_id = self._submit(body, source, sample, call)
        sequences: list[JsonValue] = [f"{request_id}-{number}" for number in range(body.num_samples)]
        return promise(request_id, sample_sequence_ids=None if isinstance(call.fault, NoSequenceIds) else sequences)

    def _submit(self, body: SampleBody, source: Source, work: Callable[[], bytes], call: Call) -> str:
        """The request id: of an earlier request of that number, where the service knows repeats."""
        key = (body.sampling_session_id or "", body.seq_id or 0)
        with self._lock:
            known = self._promised.get(key)
            if known is not None and body.sampling_session_id and self._shared.behavior.knows_repeats:
                return known
            self._promised[key] = request_id = self._shared.futures.make(source.session_id)
        self._shared.worker.submit(Operation(request_id, work, call.fault))
        return request_id

    def _require_possible(self, body: SampleBody) -> None:
        ids, params = body.prompt.ids, body.sampling_params
        if isinstance(params.stop, str) and not self._shared.behavior.knows_models:
            raise Invalid(
                [{"type": "list_type", "loc": ["stop"], "msg": "Input should be a valid list", "input": params.stop}]
            )
        if body.prompt_alt_tokens_k and self._shared.behavior.scores_choices:
            raise Refused(400, "the loopback service does not compute prompt_alt_tokens_k")
        if params.max_tokens is None or params.max_tokens < 1:
            raise Refused(400, "max_tokens must be a positive number")
        if not ids or len(ids) + params.max_tokens > self._context_length:
            raise Refused(400, f"prompt and max_tokens are not between 1 and {self._context_length} tokens")

    def _base(self, name: str | None) -> CausalLM:
        """Raises ValueError for a model that this engine does not have."""
        if name not in self._shared.served:
            served = self._shared.served[0]
            raise ValueError(f"Engine is configured for '{served}' but request specified '{name}'")
        return self._shared.models.frozen(name)

    def _adapted(self, checkpoint: Checkpoint) -> CausalLM:
        """The base model with the adapter of a checkpoint, whose weights stay until another one's are wanted."""
        run = checkpoint.run
        if not self._shared.behavior.samples_ended_runs and run not in self._models.all():
            raise ValueError(f"Model {run} not loaded")
        saving = checkpoint.saving
        base = self._shared.base(saving.base_model)
        key = (base, saving.lora.model_copy(update={"seed": None}))
        if key not in self._adapters:
            copy = self._shared.models.load(base)
            adapted = lora(copy, saving.lora.rank, ALPHA, 0, saving.lora.layers(copy))
            adapted.requires_grad_(False)
            self._adapters[key] = LoadedAdapter(
                adapted, CausalLM(cast(PreTrainedModel, adapted), copy.tokenizer, copy.eos_ids)
            )
        loaded = self._adapters[key]
        version = f"{checkpoint.path} {saving.time}"
        if loaded.version != version:
            set_peft_model_state_dict(loaded.adapted, load_file(checkpoint.folder / ADAPTER))
            loaded.version = version
        return loaded.model
