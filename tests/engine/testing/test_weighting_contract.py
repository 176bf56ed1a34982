"""`check_plugin` says what a weighting does wrong."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import PrivateAttr

from distillkit import FloatArray, PluginError, RunContext, ScoredRollout, Weighting
from distillkit.testing import check_plugin, make_rollout, make_scored


class Plain(Weighting):
    """Weighs all alike."""

    name: ClassVar[str] = "plain"

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        return [np.ones(len(each.rollout.token_ids), np.float32) for each in step]


class Negative(Plain):
    """Below 0."""

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        return [each.rollout.logprobs for each in step]


class Single(Plain):
    """One number a completion."""

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        return [np.float32(1) for _ in step]  # type: ignore[misc]


class Flat(Plain):
    """All of the step in one."""

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        return [np.concatenate(list(super().weigh(step)))]


class Counting(Plain):
    """Less each time."""

    _calls: int = PrivateAttr(0)

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        self._calls += 1
        return [array / self._calls for array in super().weigh(step)]


class Peeking(Plain):
    """Looks at the teacher's logprobs of tokens that the policy did not sample."""

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        return [np.full(len(each.rollout.token_ids), -each.teacher_logprobs.min()) for each in step]


class NeedsAnother(Plain):
    """Divides by the other completions of the step."""

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        return [array / (len(step) - 1) for array in super().weigh(step)]


class Needy(Plain):
    """Reads all that there is to read."""

    def needs(self) -> Mapping[str, int]:
        return {"topk": 3, "at_ids": 2, "reward": 1}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": 2, "entropy": 1}

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        for each in step:
            rollout, count = each.rollout, len(each.rollout.token_ids)
            assert rollout.arrays["entropy"].shape == (count,)
            assert rollout.arrays["topk_ids"].shape == (count, 2)
            for score in each.scores.values():
                assert score.arrays["topk_logprobs"].shape == (count, 3)
                assert score.arrays["at_logprobs"].shape == score.request.at_ids.shape
                assert score.arrays["reward"].shape == (count,)
        return super().weigh(step)


class Opening(Plain):
    """Works only while it is open."""

    _tokenizer: Any = PrivateAttr(None)

    async def open(self, run: RunContext) -> None:
        self._tokenizer = run.tokenizer

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        assert self._tokenizer.special_tokens()
        return super().weigh(step)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Negative(), "weights are finite and at least 0"),
        (Single(), r"an array of the shape \[\] for 10 tokens"),
        (Flat(), "gave 1 arrays for 5 completions"),
        (Counting(), "weighs the same step in two ways"),
        (Peeking(), "depend on numbers behind a mask"),
        (NeedsAnother(), "a weight of inf"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_wrong_weighting_is_refused_by_what_it_did(wrong: Weighting, message: str) -> None:
    with pytest.raises(PluginError, match=message) as error:
        check_plugin(wrong)
    assert type(wrong).__name__ in str(error.value) or "plain" in str(error.value)


@pytest.mark.parametrize("right", [Plain(), Needy(), Opening()], ids=lambda value: type(value).__name__)
def test_right_ones_pass_with_what_they_need(right: Weighting) -> None:
    check_plugin(right)


def test_completions_of_ones_own_are_weighed() -> None:
    check_plugin(Plain(), scored=[make_scored(make_rollout([1, 2, 3]), [-1.0] * 3)])
    with pytest.raises(PluginError, match=r"shape \[\] for 3 tokens"):
        check_plugin(Single(), scored=[make_scored(make_rollout([1, 2, 3]), [-1.0] * 3)])
