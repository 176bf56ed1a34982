"""A real model of transformers, with PEFT adapters. Imported when it is used, since it needs torch."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Self
from weakref import finalize

import numpy as np
import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from torch import Tensor

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.causal_lm import Network
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.generator import eos_ids_of
from distillkit_builtin.local.logprobs import CHUNK_TOKENS
from distillkit_builtin.local.plain_generator import Generator
from distillkit_loopback.openai.models import AdapterError, Drawn, Scored


class Host:
    """One network for the base model and all its adapters; they compute one at a time."""

    def __init__(self, network: Network) -> None:
        """No adapter yet."""
        self.network = network
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._unwanted: deque[str] = deque()
        """Adapters that nobody holds any more. A finalizer may run at any moment, so it only takes a note."""

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[Network]:
        """The network with that adapter on, or with none."""
        with self._lock, torch.inference_mode():
            self._forget_unwanted()
            if adapter is None or self.network.adapter is None:
                with self.network.without_adapter():
                    yield self.network
            else:
                self.network.adapter.set_adapter(adapter, inference_mode=True)
                yield self.network

    def load(self, path: Path) -> str:
        """Put an adapter on the network; returns what it is called here. Raises AdapterError if it does not fit."""
        name = f"adapter{next(self._numbers)}"
        with self._lock:
            try:
                if self.network.adapter is None:
                    # Empty at first: should its weights not fit, the wrapped model is known, and it can be off.
                    config = PeftConfig.from_pretrained(str(path))
                    self.network.adapter = PeftModel(self.network.model, config, name)
                self.network.adapter.load_adapter(str(path), adapter_name=name)
            except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
                self.unload(name)
                raise AdapterError(f"{path}: {type(error).__name__}: {error}") from error
            self.network.adapter.eval()
        return name

    def unload(self, name: str) -> None:
        """Forget an adapter before the next computation."""
        self._unwanted.append(name)

    def _forget_unwanted(self) -> None:
        adapter = self.network.adapter
        # PEFT cannot be without any adapter; the last one stays, and is off when unused.
        while self._unwanted and adapter is not None and len(adapter.peft_config) > 1:
            name = self._unwanted.popleft()
            if name in adapter.peft_config:
                adapter.delete_adapter(name)


class HFModel:
    """A local model, or one of its adapters."""

    def __init__(
        self, host: Host, name: str, text: HFTokenizer, eos_ids: frozenset[int], adapter: str | None = None
    ) -> None:
        """Use `load`."""
        self.name = name
        self.vocabulary = int(host.network.model.get_input_embeddings().get_parameter("weight").shape[0])
        self.eos_ids = eos_ids
        self.text = text
        self._host = host
        self._adapter = adapter

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """Read a model and its tokenizer, in float32 on the CPU. Raises InputError if they cannot be had."""
        network = Network.load(str(source), Device(torch.device("cpu")), torch.float32, torch.float32)
        tokenizer = HFTokenizer.load(str(source))
        return cls(Host(network), str(source), tokenizer, eos_ids_of(network, tokenizer))

    def score(self, ids: Sequence[int], start: int, top: int) -> Scored:
        """One forward pass; the vocabulary is met in chunks of positions.

        Not by `score_logprobs`, which has no ranks and no candidates.
        """
        scored = torch.tensor(ids[start:])
        with self._host.using(self._adapter) as network:
            hidden = network.hidden_states(torch.tensor(ids[:-1])[None])[0, start - 1 :]
            chunks = zip(hidden.split(CHUNK_TOKENS), scored.split(CHUNK_TOKENS), strict=True)
            parts = [_scored(network.head(h).float(), y, top) for h, y in chunks]
        logprobs, ranks, likely, likely_logprobs = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Scored(logprobs, ranks, likely, likely_logprobs)

    def draw(self, prompt: Sequence[int], seed: int, params: SamplingParams) -> Drawn:
        """As the local backend draws."""
        drawn: list[Rollout] = []
        request = SampleRequest(SampleKey("wire", 0, 0), token_ids(prompt), seed, params)
        with self._host.using(self._adapter) as network:
            Generator(network, self.text, self.eos_ids, 0).generate([request], drawn.append)
        return Drawn(tuple(drawn[0].token_ids.tolist()), drawn[0].finish_reason)

    def adapted(self, path: Path) -> Self:
        """The adapter is forgotten when this model of it is."""
        name = self._host.load(path)
        other = type(self)(self._host, self.name, self.text, self.eos_ids, name)
        finalize(other, self._host.unload, name)
        return other

    def reweighted(self, path: Path) -> Self:
        """A network of its own; what computes with this one goes on with it."""
        try:
            network = Network.load(str(path), Device(torch.device("cpu")), torch.float32, torch.float32)
        except InputError as error:
            raise AdapterError(f"{path}: {error}") from error
        return type(self)(Host(network), self.name, self.text, self.eos_ids)


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _scored(logits: Tensor, ids: Tensor, top: int) -> Arrays:
    """The fields of `Scored` for [n] ids, of their logits [n, vocabulary]."""
    law = torch.log_softmax(logits, dim=1)
    taken = law.gather(1, ids[:, None])
    best = law.topk(top, dim=1)
    ranks = (law >= taken).sum(1)
    return taken[:, 0].double().numpy(), ranks.numpy(), best.indices.numpy(), best.values.double().numpy()
