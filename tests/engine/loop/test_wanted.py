"""What a run wants of scorers and samplers for its loss, weightings and evaluators."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from distillkit import Loss, Weighting
from distillkit.loop.wanted import Wanted
from distillkit.records import ScoredRollout


class Needs(Loss):
    """Needs what it is told to."""

    of_scorers: dict[str, int] = Field(default_factory=dict, description="Of scorers.")
    of_sampler: dict[str, int] = Field(default_factory=dict, description="Of the sampler.")

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, **self.of_scorers}

    def sampler_needs(self) -> Mapping[str, int]:
        return self.of_sampler


class Weighs(Weighting):
    """Wants more of the same."""

    name: ClassVar[str] = "weighs"

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[np.ndarray]:
        return [np.ones(len(scored.rollout.token_ids)) for scored in step]

    def needs(self) -> Mapping[str, int]:
        return {"topk": 20}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": 30, "entropy": 1}


def wanted_by(loss: Loss, *weightings: Weighting) -> Wanted:
    from types import SimpleNamespace

    return Wanted.by(SimpleNamespace(loss=loss, train=SimpleNamespace(weightings=weightings)))  # type: ignore[arg-type]


def test_what_others_want_does_not_change_the_ids_of_the_loss() -> None:
    class Named(Needs):
        name: ClassVar[str] = "named"

    loss = Named(of_scorers={"topk": 4, "at_ids": 1}, of_sampler={"topk": 6})
    assert wanted_by(loss, Weighs()) == Wanted({"topk": 30, "entropy": 1}, {"topk": 20, "at_ids": 1}, 6, 4)
    assert wanted_by(Named(of_scorers={"topk": 4}), Weighs()) == Wanted({"topk": 30, "entropy": 1}, {"topk": 20})
    assert wanted_by(Named()) == Wanted()
