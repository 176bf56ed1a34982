"""What the kit makes up for losses: all that they say they need, and as a teacher would give it."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest
from pydantic import PrivateAttr

from distillkit import Loss
from distillkit.arrays import Array, logprob_array, token_ids
from distillkit.errors import PluginError
from distillkit.records import ScoredRollout, ScoreRequest
from distillkit.testing import check_plugin, make_rollout, make_scored
from distillkit.testing.synthetic_batches import make_arrays


class Many(Loss):
    """Needs more of scorers than the sampled logprobs, of any number of teachers, and keeps what it got."""

    name: ClassVar[str] = "many"
    loss_function: ClassVar[str] = "many"
    _seen: list[ScoredRollout] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[ScoredRollout]:
        return self._seen

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "topk": 20, "at_ids": 3, "full": 1, "hidden": 8, "certainty": 1}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": 3, "entropy": 1}

    def max_teachers(self) -> int | None:
        return None

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        self._seen.append(completion)
        parts = [score.arrays["topk_logprobs"] for score in completion.scores.values()]
        return {"mixture": np.logaddexp.reduce(parts)}


class Two(Many):
    """Of two teachers at most."""

    def max_teachers(self) -> int | None:
        return 2


class Peculiar(Many):
    """Needs what only its author can make up."""

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "topk": 2, "parse_tree": 1}

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        assert completion.scores["teacher"].arrays["parse_tree"].dtype == np.int64, "a tree has nodes"
        return super().inputs(completion)


@pytest.mark.parametrize("loss", [Many(), Two()])
def test_a_loss_gets_all_that_it_says_it_needs(loss: Many) -> None:
    check_plugin(loss)
    assert {len(one.scores) for one in loss.seen} == {1, 2}
    for one in loss.seen:
        assert one.prompts.route.weights.keys() == one.scores.keys()
        count = len(one.rollout.token_ids)
        sampled = {name: array.shape for name, array in one.rollout.arrays.items()}
        assert sampled == {"topk_ids": (count, 3), "topk_logprobs": (count, 3), "entropy": (count,)}
        for score in one.scores.values():
            shapes = {name: array.shape for name, array in score.arrays.items()}
            assert shapes == {
                "topk_ids": (count, 20),
                "topk_logprobs": (count, 20),
                "at_logprobs": (count, 3 if len(one.scores) == 1 else 20),  # several: the union of their top-K
                "hidden": (count, 8),
                "certainty": (count,),
            }


@pytest.mark.parametrize("least", [1, 2, 20, 1000])
def test_made_up_top_k_are_a_distribution_that_agrees_with_the_sampled_logprobs(least: int) -> None:
    rollout = make_rollout([65, 150_000, 0], [-1.0, -1.0, -1.0])
    logprobs = logprob_array([-0.01, -1.0, -30.0])
    arrays = make_arrays(ScoreRequest(rollout, "t", token_ids([5]), topk=least), {}, logprobs)
    for ids, values, sampled, logprob in zip(*arrays.values(), rollout.token_ids, logprobs, strict=True):
        assert len(set(ids.tolist())) == least
        assert (np.diff(values) <= 0).all()
        assert np.exp(values, dtype=np.float64).sum() <= 1 + 1e-6
        assert (sampled in ids) == (logprob >= values.min())
        if sampled in ids:
            assert values[ids.tolist().index(sampled)] == logprob
        else:
            assert values.min() >= logprob


def test_made_up_logprobs_of_given_ids_are_those_of_the_made_up_top_k() -> None:
    rollout = make_rollout([65, 250, 0], [-1.0, -1.0, -1.0])
    logprobs = logprob_array([-0.01, -1.0, -3.0])
    top = make_arrays(ScoreRequest(rollout, "t", token_ids([5]), topk=20), {}, logprobs)
    asked = top["topk_ids"].copy()
    asked[0, -1] = -1
    (found,) = make_arrays(ScoreRequest(rollout, "t", token_ids([5]), at_ids=asked), {}, logprobs).values()
    assert found[0, -1] == -np.inf
    np.testing.assert_array_equal(np.delete(found.ravel(), 19), np.delete(top["topk_logprobs"].ravel(), 19))


def test_what_cannot_be_made_up_for_a_loss_is_said_and_can_be_passed() -> None:
    with pytest.raises(
        PluginError, match=r"(?s)a tree has nodes.*\['parse_tree'\], which the engine.*scored=\[make_scored"
    ):
        check_plugin(Peculiar())
    arrays = make_arrays(ScoreRequest(make_rollout([5, 6]), "t", token_ids([5]), topk=2), {}, logprob_array([-1, -1]))
    tree = {**arrays, "parse_tree": np.array([0, 0])}
    check_plugin(Peculiar(), scored=[make_scored(make_rollout([5, 6]), [-1.0, -1.0], arrays=tree)])
