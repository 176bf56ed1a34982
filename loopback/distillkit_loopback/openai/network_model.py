"""A real model of transformers, with PEFT adapters. Imported when it is used, since it needs torch."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Self
from weakref import finalize

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError

from distillkit.errors import InputError
from distillkit.types import SamplingParams
from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.hf.tokenizer import HFTokenizer
from distillkit_loopback.openai.models import AdapterError, Sampled, Scored


class SharedBase:
    """One copy of the base model's weights for itself and all its adapters, which compute one at a time."""

    def __init__(self, base: CausalLM) -> None:
        """Serve `base` with no adapter."""
        self.base = base
        self.adapters: PeftModel | None = None
        """What wraps the base model once an adapter was loaded."""
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._unused: deque[str] = deque()
        """Adapters that nobody holds any more. A finalizer may run at any moment, so it only takes a note."""

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[CausalLM]:
        """The model with that adapter on, or with none, for as long as the block runs."""
        with self._lock:
            self._delete_unused()
            if self.adapters is None:
                yield self.base
            elif adapter is None:
                with self.adapters.disable_adapter():
                    yield self.base
            else:
                self.adapters.set_adapter(adapter, inference_mode=True)
                yield self.base

    def load(self, path: Path) -> str:
        """Put an adapter on the model; returns its name here. Raises AdapterError if it does not fit."""
        name = f"adapter{next(self._numbers)}"
        with self._lock:
            try:
                if self.adapters is None:
                    # Empty at first: should its weights not fit, the wrapped model is known, and it can be off.
                    config = PeftConfig.from_pretrained(str(path))
                    self.adapters = PeftModel(self.base.model, config, name)
                self.adapters.load_adapter(str(path), adapter_name=name)
            except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
                self.unload(name)
                raise AdapterError(f"{path}: {type(error).__name__}: {error}") from error
            self.adapters.eval()
        return name

    def unload(self, name: str) -> None:
        """Delete an adapter before the next computation."""
        self._unused.append(name)

    def _delete_unused(self) -> None:
        # PEFT cannot be without any adapter; the last one stays, and is off when unused.
        while self._unused and self.adapters is not None and len(self.adapters.peft_config) > 1:
            name = self._unused.popleft()
            if name in self.adapters.peft_config:
                self._activate_another(name)
                self.adapters.delete_adapter(name)

    def _activate_another(self, name: str) -> None:
        """PEFT warns when it has to choose which adapter is active after a deletion."""
        if self.adapters is not None and self.adapters.active_adapter == name:
            other = next(each for each in self.adapters.peft_config if each != name)
            self.adapters.set_adapter(other, inference_mode=True)


class NetworkModel:
    """A model of transformers, or one of its adapters."""

    def __init__(self, shared: SharedBase, name: str, adapter: str | None = None) -> None:
        """`adapter` is its name at `shared`; None: the base model. `load` reads a model."""
        self.name = name
        self.vocabulary = shared.base.vocabulary
        self.eos_ids = shared.base.eos_ids
        self.tokenizer: HFTokenizer = shared.base.tokenizer
        self._shared = shared
        self._adapter = adapter

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """Read a model and its tokenizer, in float32 on the CPU. Raises InputError if they cannot be read."""
        return cls(SharedBase(CausalLM.load(str(source))), str(source))

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that take memory now, those that are about to be deleted among them."""
        wrapped = self._shared.adapters
        return () if wrapped is None else tuple(wrapped.peft_config)

    def score(self, ids: Sequence[int], start: int, top: int) -> Scored:
        """One forward pass of `ids` by themselves."""
        with self._shared.using(self._adapter) as model:
            logprobs = model.logprobs(ids, start)
        taken = logprobs.gather(1, torch.tensor(ids[start:])[:, None])
        best = logprobs.topk(top, dim=1)
        return Scored(
            logprobs=taken[:, 0].double().numpy(),
            ranks=(logprobs >= taken).sum(1).numpy(),
            topk_ids=best.indices.numpy(),
            topk_logprobs=best.values.double().numpy(),
        )

    def sample(self, prompt: Sequence[int], seed: int, params: SamplingParams) -> Sampled:
        """One completion, sampled token by token."""
        with self._shared.using(self._adapter) as model:
            sample = model.sample(prompt, seed, params)
        return Sampled(sample.ids, sample.finish_reason)

    def adapted(self, path: Path) -> Self:
        """The same weights with an adapter on, which is deleted when this object is."""
        name = self._shared.load(path)
        other = type(self)(self._shared, self.name, name)
        finalize(other, self._shared.unload, name)
        return other

    def reweighted(self, path: Path) -> Self:
        """A model of its own; what computes with this one goes on with it."""
        try:
            return type(self)(SharedBase(CausalLM.load(str(path), self.tokenizer)), self.name)
        except InputError as error:
            raise AdapterError(f"{path}: {error}") from error
