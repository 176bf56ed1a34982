"""Weights of an optimizer step equal the definitions in plain Python; a wrong weighting is named."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
from helpers import reference_loss
from helpers.limited_plugins import QuietStudent
from hypothesis import given
from hypothesis import strategies as st

from distillkit import InputError, PluginError, RunConfig, Score, ScoredRollout, ScoreRequest, Weighting, run
from distillkit.arrays import FloatArray, logprob_array
from distillkit.config.train_config import Normalization
from distillkit.loop.batch_maker import BatchMaker
from distillkit.loop.token_weights import step_weights
from distillkit.testing import make_rollout, make_row, make_scored
from distillkit.types import Prompts, Route
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

ROUTES = ("a", "b", "a+b", "b+a")
STEP = st.lists(
    st.tuples(st.sampled_from(ROUTES), st.lists(st.booleans(), min_size=1, max_size=6)), min_size=1, max_size=7
)
NORMALIZATIONS = get_args(Normalization)


class Factor(Weighting):
    """Gives every token what it is told to."""

    name: ClassVar[str] = "factor"
    value: float = 1.0

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        return [np.full(len(each.rollout.token_ids), self.value, np.float32) for each in step]


class FirstOnly(Weighting):
    """Keeps the first token of each completion."""

    name: ClassVar[str] = "first_only"

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        return [(np.arange(len(each.rollout.token_ids)) == 0).astype(np.float32) for each in step]


class Given(Weighting):
    """Gives what a test wants it to."""

    name: ClassVar[str] = "given"
    arrays: ClassVar[Any] = None

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        if isinstance(self.arrays, Exception):
            raise self.arrays
        return self.arrays  # type: ignore[no-any-return]


def completion(line: int, route: str, mask: Sequence[bool], sample: int = 0) -> ScoredRollout:
    row, teachers = make_row(str(line), line=line), route.split("+")
    rollout = make_rollout([1] * len(mask), row=row, mask=mask, sample=sample)
    prompt, logprobs = rollout.request.prompt_ids, logprob_array([-1.0] * len(mask))
    scores = {name: Score(ScoreRequest(rollout, name, prompt), logprobs, rollout.token_ids) for name in teachers}
    prompts = Prompts(row, Route(dict.fromkeys(teachers, 1.0)), prompt, dict.fromkeys(teachers, prompt))
    return ScoredRollout(rollout, prompts, scores)


def step_of(parts: Sequence[tuple[str, Sequence[bool]]]) -> list[ScoredRollout]:
    return [completion(line, *part) for line, part in enumerate(parts, start=1)]


def as_set(route: str) -> str:
    return "+".join(sorted(route.split("+")))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@given(parts=STEP.filter(lambda parts: any(any(mask) for _, mask in parts)))
def test_every_normalization_equals_its_definition(normalization: Normalization, parts: Any) -> None:
    found = step_weights(step_of(parts), normalization, ())
    routes, masks = [as_set(route) for route, _ in parts], [mask for _, mask in parts]
    for array, wanted in zip(found.arrays, reference_loss.weights(masks, normalization, routes), strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-6)
    assert not found.metrics


@pytest.mark.parametrize("normalization", ["token_mean", "sequence_mean", "route_mean"])
@given(parts=STEP.filter(lambda parts: any(any(mask) for _, mask in parts)))
def test_means_sum_to_one(normalization: Normalization, parts: Any) -> None:
    arrays = step_weights(step_of(parts), normalization, ()).arrays
    assert sum(float(array.sum()) for array in arrays) == pytest.approx(1, rel=1e-5)


def test_a_route_of_long_answers_outweighs_another_by_tokens_and_not_by_routes() -> None:
    parts = [("long", [True] * 12), ("short", [True] * 3), ("short", [False, True])]
    by_token, by_route = (step_weights(step_of(parts), each, ()).arrays for each in ("token_mean", "route_mean"))  # type: ignore[arg-type]
    assert float(by_token[0].sum()) == pytest.approx(12 / 16)
    assert float(by_route[0].sum()) == pytest.approx(1 / 2)
    assert by_route[1].tolist() == pytest.approx([1 / 8] * 3)
    assert by_route[2].tolist() == pytest.approx([0, 1 / 8])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_where_nothing_was_sampled_nothing_counts(normalization: Normalization) -> None:
    found = step_weights(step_of([("a", [False, False]), ("b", [False])]), normalization, [Factor(value=2)])
    assert [array.tolist() for array in found.arrays] == [[0, 0], [0]]
    assert not found.metrics


def test_weightings_are_multiplied_and_leave_the_others_as_heavy_as_they_were() -> None:
    step = step_of([("a", [True, True, True]), ("b", [False, True])])
    found = step_weights(step, "token_mean", [FirstOnly(), Factor(value=0.5)])
    assert found.arrays[0].tolist() == pytest.approx([1 / 8, 0, 0])
    assert found.arrays[1].tolist() == [0, 0]
    assert found.metrics == pytest.approx(
        {"weights/first_only": 1 / 4, "weights/factor": 1 / 2, "weights/kept_fraction": 1 / 8}
    )


def test_metrics_are_shares_of_the_weight_and_not_of_the_tokens() -> None:
    step = step_of([("a", [True] * 3), ("b", [True])])
    found = step_weights(step, "route_mean", [FirstOnly()])
    assert found.metrics["weights/kept_fraction"] == pytest.approx((1 / 6 + 1 / 2) / 1)


def test_what_a_weighting_says_behind_a_mask_does_not_matter() -> None:
    class Behind(Given):
        arrays: ClassVar[Any] = [np.array([np.nan, 2.0]), np.array([-1.0])]

    found = step_weights(step_of([("a", [False, True]), ("a", [False])]), "sum", [Behind()])
    assert [array.tolist() for array in found.arrays] == [[0, 2], [0]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([[1.0, 1.0]], r"weigh\(\) gave 1 arrays for 2 completions"),
        ([[1.0], [1.0]], r"weigh\(\) gave .* an array of the shape \[1\] for 2 tokens"),
        ([[1.0, -0.5], [1.0]], r"weigh\(\) gave .* a weight of -0.5; weights are finite and at least 0"),
        ([[1.0, float("nan")], [1.0]], r"a weight of nan"),
        (None, r"weigh\(\) returned NoneType, not Sequence or ndarray"),
        ([[1.0, float("inf")], [1.0]], r"a weight of inf"),
    ],
)
def test_a_wrong_weighting_is_named(arrays: Any, message: str) -> None:
    wrong = type("Wrong", (Given,), {"arrays": arrays, "__module__": __name__})()
    with pytest.raises(PluginError, match=rf"given.*{message}"):
        step_weights(step_of([("a", [True, True]), ("a", [True])]), "sum", [wrong])


def test_what_a_weighting_raises_names_it() -> None:
    wrong = type("Wrong", (Given,), {"arrays": ValueError("no"), "__module__": __name__})()
    with pytest.raises(ValueError, match="no") as error:
        step_weights(step_of([("a", [True, True])]), "sum", [wrong])
    assert "raised by weighting 'given'" in error.value.__notes__[0]
    assert "in weigh()" in error.value.__notes__[0]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("substeps", [1, 2, 5])
def test_each_optimizer_step_is_normalized_by_itself(normalization: Normalization, substeps: int) -> None:
    masks = {1: [[True] * 4, [True, False]], 2: [[True]], 3: [[False, False], [True, True]]}
    step = [
        completion(line, "ab"[line % 2], mask, sample)
        for line, each in masks.items()
        for sample, mask in enumerate(each)
    ]
    made = BatchMaker(ImportanceSampling(), substeps=substeps, normalization=normalization).batches(step)
    rows = {1: [[1, 2, 3]], 2: [[1], [2, 3]], 5: [[1], [2], [3]]}[substeps]
    assert [sorted({int(datum.key.row_id.split("-")[0]) for datum in each.batch.datums}) for each in made] == rows
    for lines, each in zip(rows, made, strict=True):
        mine = [(("ab"[line % 2]), mask) for line in lines for mask in masks[line]]
        wanted = reference_loss.weights([mask for _, mask in mine], normalization, [route for route, _ in mine])
        for datum, row in zip(each.batch.datums, wanted, strict=True):
            np.testing.assert_allclose(datum.inputs["weights"], row, rtol=1e-6)


def test_a_run_has_the_metrics_of_its_weightings(fake_config: Any) -> None:
    train: Mapping[str, Any] = {"prompt_groups_per_step": 2, "weightings": [FirstOnly(), Factor(value=0.5)]}
    config: RunConfig = fake_config(train=train, sampling={"max_completion_tokens": 12})
    row = run(config).metrics[-1]
    assert row["weights/factor"] == pytest.approx(0.5)
    assert row["weights/kept_fraction"] == pytest.approx(0.5 * row["weights/first_only"])
    assert 0 < row["weights/first_only"] < 0.5


def test_a_weighting_gets_what_it_needs_of_the_sampler(fake_config: Any) -> None:
    entropy: dict[str, Any] = {"weightings": [{"name": "entropy", "share": 0.25}]}
    config = fake_config(train=entropy)
    with pytest.raises(InputError, match="sampler 'quiet' gives nothing more; weighting 'entropy' needs entropy"):
        run(config.model_copy(update={"student": QuietStudent()}))
    row = run(config).metrics[0]
    assert row["weights/entropy"] == pytest.approx(
        round(0.25 * row["train/active_tokens"]) / row["train/active_tokens"]
    )


def test_without_weightings_there_are_no_such_metrics(fake_config: Any) -> None:
    assert not [name for name in run(fake_config()).metrics[-1] if name.startswith("weights/")]


def test_a_scored_completion_of_the_kit_is_one_route() -> None:
    one = make_scored(make_rollout([1, 2]), [-1.0, -1.0])
    assert step_weights([one], "route_mean", ()).arrays[0].tolist() == [0.5, 0.5]
