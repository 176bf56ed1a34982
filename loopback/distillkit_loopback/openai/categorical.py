"""A model that costs nothing: the next token depends on the previous one alone, by a fixed table of probabilities."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from distillkit.records import FinishReason
from distillkit.types import SamplingParams
from distillkit_loopback.openai.models import AdapterError, Ids, Numbers, Sampled, Scored, Tokenizer

SPREAD = 2.0
"""Standard deviation of the logits: the distributions are far from uniform."""


class ByteTokenizer:
    """Ids below 256 are bytes; any other is special, `<300>`."""

    def encode(self, text: str) -> list[int]:
        """The ids of the text's UTF-8 bytes, one a byte."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text, without special tokens."""
        return bytes(index for index in ids if index < 256).decode(errors="replace")

    def show(self, ids: Sequence[int]) -> str:
        """The text, with special tokens."""
        pieces = [bytes([index]) if index < 256 else f"<{index}>".encode() for index in ids]
        return b"".join(pieces).decode(errors="replace")


class CategoricalModel:
    """`p(next | previous)`: a table with one distribution for each remainder of the previous id by `contexts`."""

    def __init__(
        self,
        *,
        vocabulary: int = 259,
        seed: int = 0,
        contexts: int = 64,
        eos_ids: frozenset[int] = frozenset(),
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """The table is [contexts, vocabulary] float64: exact, and small for a real vocabulary too."""
        self.name = f"categorical-{seed}"
        self.vocabulary = vocabulary
        self.eos_ids = eos_ids
        self.tokenizer: Tokenizer = tokenizer or ByteTokenizer()
        self._contexts = contexts
        self._keep(np.random.default_rng(seed).normal(0.0, SPREAD, (contexts, vocabulary)))

    def distribution(self, previous: int) -> Numbers:
        """[vocabulary] logprobs of what follows an id."""
        row: Numbers = self._logprobs[previous % self._contexts]
        return row

    def score(self, ids: Sequence[int], start: int, top: int) -> Scored:
        """The logprobs, ranks and top tokens of `ids[start:]`, from the table."""
        whole = np.asarray(ids, dtype=np.int64)
        rows, scored = whole[start - 1 : -1] % self._contexts, whole[start:]
        best = self._order[rows, :top]
        return Scored(
            logprobs=self._logprobs[rows, scored],
            ranks=self._ranks[rows, scored],
            topk_ids=best,
            topk_logprobs=self._logprobs[rows[:, None], best],
        )

    def sample(self, prompt: Sequence[int], seed: int, params: SamplingParams) -> Sampled:
        """Token by token, by inverse transform of uniform numbers."""
        uniforms = np.random.Generator(np.random.Philox(key=seed)).random(params.max_tokens)
        ids: list[int] = []
        for uniform in uniforms:
            ids.append(_chosen(self.distribution(ids[-1] if ids else prompt[-1]), float(uniform), params))
            if ended := self._ended(ids, params):
                return Sampled(tuple(ids), ended)
        return Sampled(tuple(ids), "length")

    def adapted(self, path: Path) -> Self:
        """With logits that are moved at random, by a seed which is the hash of the adapter's files."""
        return self._moved(path, "adapter_config.json", "adapter_model.safetensors")

    def reweighted(self, path: Path) -> Self:
        """Likewise, by the hash of the weights."""
        return self._moved(path, "model.safetensors")

    def _moved(self, path: Path, *names: str) -> Self:
        content = hashlib.sha256()
        for name in names:
            if not (path / name).is_file():
                raise AdapterError(f"{path} holds no {name}")
            content.update((path / name).read_bytes())
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        seed = int.from_bytes(content.digest()[:8])
        other._keep(self._logprobs + np.random.default_rng(seed).normal(0.0, 1.0, self._logprobs.shape))
        return other

    def _keep(self, logits: Numbers) -> None:
        peak = logits.max(axis=1, keepdims=True)
        self._logprobs: Numbers = logits - peak - np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
        self._order: Ids = np.argsort(-self._logprobs, axis=1, kind="stable")
        self._ranks: Ids = np.empty_like(self._order)
        np.put_along_axis(self._ranks, self._order, np.arange(1, self.vocabulary + 1)[None], axis=1)

    def _ended(self, ids: Sequence[int], params: SamplingParams) -> FinishReason | None:
        if ids[-1] in self.eos_ids or ids[-1] in params.stop_ids:
            return "stop"
        if params.stop and any(stop in self.tokenizer.decode(ids) for stop in params.stop):
            return "stop"
        return None


def _chosen(logprobs: Numbers, uniform: float, params: SamplingParams) -> int:
    if params.temperature == 0:
        return int(logprobs.argmax())
    cumulative = np.cumsum(_filtered(logprobs, params))
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(index, len(logprobs) - 1)


def _filtered(logprobs: Numbers, params: SamplingParams) -> Numbers:
    """[vocabulary] probabilities, not normalized: at the temperature, without what top-k and then top-p leave out."""
    probabilities: Numbers = np.exp((logprobs - logprobs.max()) / params.temperature)
    order = np.argsort(-probabilities, kind="stable")
    if params.top_k:
        probabilities[order[params.top_k :]] = 0.0
    if params.top_p < 1.0:
        ordered = probabilities[order] / probabilities.sum()
        probabilities[order[np.cumsum(ordered) - ordered >= params.top_p]] = 0.0
    return probabilities
