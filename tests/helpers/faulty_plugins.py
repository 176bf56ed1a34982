"""Scorers with faults as a script for `-p`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import PrivateAttr

from distillkit import RunContext, Score, Scorer, hookimpl, logprob_array
from distillkit.records import Failure, ScoreRequest
from distillkit.testing import FakeScorer


class JitteringScorer(FakeScorer):
    """A fake whose scores are other ones each time."""

    name: ClassVar[str] = "jitter"
    _generator: np.random.Generator = PrivateAttr(default_factory=lambda: np.random.default_rng(0))

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score(requests):
            assert isinstance(score, Score)
            noise = self._generator.normal(0.0, 5.0, len(score.logprobs))
            yield replace(score, logprobs=logprob_array(np.minimum(0.0, score.logprobs + noise)))


class UnopenableScorer(FakeScorer):
    """A fake that cannot be opened."""

    name: ClassVar[str] = "unopenable"

    async def open(self, run: RunContext) -> None:
        raise RuntimeError("it cannot be opened")


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    return [JitteringScorer, UnopenableScorer]
