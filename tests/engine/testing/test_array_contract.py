"""The kit finds samplers and scorers whose arrays a token do not fit what they sampled and scored."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from distillkit.arrays import Array
from distillkit.errors import AlignmentError, PluginError
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import FakeScorer, FakeStudent, check_plugin
from distillkit.types import SampleRequest

Arrays = Mapping[str, Array]
Change = Callable[[dict[str, Array]], dict[str, Array]]


class Wrong(FakeScorer):
    """Changes what it gives."""

    change: ClassVar[Change]

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score(requests):
            assert isinstance(score, Score)
            copied = {name: array.copy() for name, array in score.arrays.items()}
            yield replace(score, arrays=type(self).change(copied)) if copied else score


class WrongStudent(FakeStudent):
    """Changes what it gives."""

    change: ClassVar[Change]

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for rollout in super().sample(requests):
            assert isinstance(rollout, Rollout)
            copied = {name: array.copy() for name, array in rollout.arrays.items()}
            yield replace(rollout, arrays=type(self).change(copied)) if copied else rollout


def changing(cls: type[Any], change: Change, **options: str) -> Any:
    return type("Changed", (cls,), {"change": staticmethod(change), "__doc__": cls.__doc__})(**options)


def backwards(arrays: dict[str, Array]) -> dict[str, Array]:
    table = arrays["topk_logprobs"]
    table[:, 1] += 1.0
    table[:, 2:] -= 9.0
    return arrays


def set_to(name: str, column: int | None, value: float) -> Change:
    def change(arrays: dict[str, Array]) -> dict[str, Array]:
        arrays[name][:, column] = value
        return arrays

    return change


def shifted(name: str, by: float) -> Change:
    return lambda arrays: {**arrays, name: arrays[name] + np.asarray(by, arrays[name].dtype)}


SCORERS: list[tuple[Change, str]] = [
    (backwards, "do not fall"),
    (set_to("topk_logprobs", slice(None), -0.1), r"the probability 4\.5"),  # type: ignore[arg-type]
    (set_to("topk_logprobs", 0, -np.inf), "topk_logprobs that are no finite numbers"),
    (set_to("topk_ids", 0, -1), "another logprob than -inf"),
    (lambda arrays: {**arrays, "topk_ids": arrays["topk_ids"][:, [0, 0, 1, 2, 3]]}, "twice in topk_ids"),
    (shifted("at_logprobs", -0.01), "nats from the logprobs of the same"),
    (set_to("at_logprobs", 1, -3.0), "which is none, the logprob"),
]


@pytest.mark.parametrize(("change", "message"), SCORERS)
def test_scores_whose_arrays_are_wrong_are_found(change: Change, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check_plugin(changing(Wrong, change))


def least_likely(arrays: dict[str, Array]) -> dict[str, Array]:
    """Of other tokens than the most probable."""
    arrays["topk_ids"] += 5
    arrays["topk_logprobs"] -= 3.0
    return arrays


def test_a_sampled_token_has_one_logprob_and_is_among_the_most_probable() -> None:
    with pytest.raises(PluginError, match="another logprob in topk_logprobs"):
        check_plugin(changing(Wrong, shifted("topk_logprobs", -0.01), likes="aBn"))
    with pytest.raises(PluginError, match="left a sampled token out of topk_ids"):
        check_plugin(changing(Wrong, least_likely, likes="\x00\x01\x02\x03\x04abeg"))


STUDENTS: list[tuple[Change, str]] = [
    (backwards, "do not fall"),
    (set_to("topk_logprobs", slice(None), -0.1), r"the probability 4\.5"),  # type: ignore[arg-type]
    (shifted("entropy", -9.0), "an entropy that is none"),
    (lambda arrays: {**arrays, "entropy": arrays["entropy"] * 0}, "less than that of its top-k alone"),
]


@pytest.mark.parametrize(("change", "message"), STUDENTS)
def test_completions_whose_arrays_are_wrong_are_found(change: Change, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check_plugin(changing(WrongStudent, change))


def test_what_is_claimed_and_not_given_is_found() -> None:
    with pytest.raises(AlignmentError, match="has no array 'at_logprobs', which was wanted of it"):
        check_plugin(changing(Wrong, lambda arrays: {k: v for k, v in arrays.items() if k != "at_logprobs"}))
    with pytest.raises(AlignmentError, match="has no array 'entropy', which was wanted of it"):
        check_plugin(changing(WrongStudent, lambda arrays: {k: v for k, v in arrays.items() if k != "entropy"}))


class Few(FakeScorer):
    """Gives a little."""

    given: ClassVar[dict[str, int | None]] = {"sampled": None, "topk": 2}

    def capabilities(self) -> Mapping[str, int | None]:
        return self.given


@pytest.mark.parametrize("given", [{"sampled": None}, {"sampled": None, "topk": 2}, {"at_ids": 1}])
def test_no_more_is_asked_for_than_is_claimed(given: dict[str, int | None]) -> None:
    scorer = type("FewOf", (Few,), {"given": given, "__doc__": Few.__doc__})()
    check_plugin(scorer)
    topk = {request.topk for request in scorer.seen}
    widths = {0 if request.at_ids is None else request.at_ids.shape[1] for request in scorer.seen}
    assert topk == {0, *([2] if "topk" in given else [])}
    assert widths == {0, *([1] if "at_ids" in given else [])}


def test_the_fakes_pass() -> None:
    check_plugin(FakeScorer(likes="ab"))
    check_plugin(FakeStudent())
