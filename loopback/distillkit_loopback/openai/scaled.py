"""A model with other weights than it should have: its logits are multiplied, as if the head's were."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillkit.types import SamplingParams
from distillkit_loopback.openai.models import Model, Sampled, Scored, Tokenizer


class Scaled:
    """A `Model` around another one. Penalties are of the logits before they are scaled."""

    def __init__(self, model: Model, scale: float) -> None:
        """`scale` above 1 makes each distribution more peaked, below 1 flatter."""
        self.name = model.name
        self.vocabulary = model.vocabulary
        self.eos_ids = model.eos_ids
        self._model = model
        self._scale = scale

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self._model.tokenizer

    def score(self, ids: Sequence[int], start: int, top: int) -> Scored:
        """The scaled logprobs; which tokens are the best does not change."""
        whole = self._model.score(ids, start, self.vocabulary)
        scaled = whole.topk_logprobs * self._scale
        norms = np.logaddexp.reduce(scaled, axis=1)
        return Scored(
            logprobs=whole.logprobs * self._scale - norms,
            ranks=whole.ranks,
            topk_ids=whole.topk_ids[:, :top],
            topk_logprobs=(scaled - norms[:, None])[:, :top],
        )

    def sample(self, prompt: Sequence[int], seed: int, params: SamplingParams) -> Sampled:
        """Scaled logits are those at another temperature."""
        return self._model.sample(prompt, seed, replace(params, temperature=params.temperature / self._scale))

    def adapted(self, path: Path) -> "Scaled":
        """The model with an adapter, scaled likewise."""
        return Scaled(self._model.adapted(path), self._scale)

    def reweighted(self, path: Path) -> "Scaled":
        """The model with other weights, scaled likewise."""
        return Scaled(self._model.reweighted(path), self._scale)
