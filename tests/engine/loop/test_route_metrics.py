"""What a step's metrics say of each route equals its definition."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from distillkit import RunConfig, ScoredRollout, run
from distillkit.loop.batch_maker import BatchMaker
from distillkit.loop.route_headroom import STEPS, RouteHeadroom
from distillkit.loop.route_metrics import route_metrics
from distillkit.metrics import topk_mass, topk_overlap
from distillkit.records import Score, ScoreRequest
from distillkit.testing import complete_batch, make_rollout, make_row, make_scored, make_teacher
from distillkit.types import Prompts, Route
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

ROWS = [make_row(str(line), line=line) for line in (1, 2, 3)]
LONG = make_scored(
    replace(make_rollout([1, 2, 3], [-1.0, -2.0, -9.0], row=ROWS[0], mask=[True, True, False]), finish_reason="length"),
    [-2.0, -2.5, 0.0],
    teacher="a",
)
SHORT = make_scored(make_rollout([4], [-0.5], row=ROWS[1]), [-0.25], teacher="b")
TEACHERS = [make_teacher(name) for name in ("a", "b", "idle")]


def of_both(shares: Sequence[float]) -> ScoredRollout:
    """A completion of one token that both teachers scored."""
    rollout = make_rollout([5], row=ROWS[2])
    prompt = rollout.request.prompt_ids
    scores = {name: Score(ScoreRequest(rollout, name, prompt), rollout.logprobs, None) for name in "ab"}
    route = Route(dict(zip("ab", shares, strict=True)))
    return ScoredRollout(rollout, Prompts(ROWS[2], route, prompt, dict.fromkeys("ab", prompt)), scores)


def with_topk(completion: ScoredRollout, ours: Any, theirs: Any, mass: Any = None) -> ScoredRollout:
    """With the ids [R, K] of both sides, and the probabilities [R, K] of the teacher's."""
    ((name, score),) = completion.scores.items()
    rollout = replace(completion.rollout, arrays={} if ours is None else {"topk_ids": np.array(ours)})
    arrays = {"topk_ids": np.array(theirs)}
    if mass is not None:
        arrays["topk_logprobs"] = np.log(np.array(mass, np.float32))
    request = replace(score.request, rollout=rollout)
    return replace(completion, rollout=rollout, scores={name: replace(score, request=request, arrays=arrays)})


def test_they_are_there_for_every_teacher() -> None:
    step = [LONG, SHORT]
    metrics = route_metrics(step, {"b": 2}, TEACHERS, [complete_batch(ImportanceSampling(), step)])
    assert metrics == pytest.approx(
        {
            "teacher_route/a/scored": 1,
            "teacher_route/a/failed": 0,
            "teacher_route/a/tokens": 2,
            "teacher_route/a/weight": 2 / 3,
            "teacher_route/a/reverse_kl": 0.75,
            "teacher_route/a/truncated_fraction": 1,
            "teacher_route/b/scored": 1,
            "teacher_route/b/failed": 2,
            "teacher_route/b/tokens": 1,
            "teacher_route/b/weight": 1 / 3,
            "teacher_route/b/reverse_kl": -0.25,
            "teacher_route/b/truncated_fraction": 0,
            "teacher_route/idle/scored": 0,
            "teacher_route/idle/failed": 0,
            "teacher_route/idle/tokens": 0,
            "teacher_route/idle/weight": 0,
        }
    )


@pytest.mark.parametrize(("normalization", "share"), [("route_mean", 0.5), ("token_mean", 2 / 3), ("sum", 2 / 3)])
@pytest.mark.parametrize("substeps", [1, 2])
def test_the_weight_is_that_of_the_batches(normalization: Any, share: float, substeps: int) -> None:
    step = [LONG, SHORT]
    made = BatchMaker(ImportanceSampling(), substeps=substeps, normalization=normalization).batches(step)
    metrics = route_metrics(step, {}, TEACHERS, [each.batch for each in made])
    if substeps == 1 or normalization == "sum":
        assert metrics["teacher_route/a/weight"] == pytest.approx(share)
    else:  # each route is an optimizer step of its own
        assert metrics["teacher_route/a/weight"] == pytest.approx(0.5)


def test_a_row_of_several_teachers_is_divided_as_its_mixture() -> None:
    step = [of_both([3, 1])]
    metrics = route_metrics(step, {}, TEACHERS, [complete_batch(ImportanceSampling(), step)])
    assert metrics["teacher_route/a/weight"] == pytest.approx(0.75)
    assert metrics["teacher_route/b/weight"] == pytest.approx(0.25)
    assert metrics["teacher_route/a/tokens"] == metrics["teacher_route/b/tokens"] == 1


def test_where_no_token_has_any_weight_each_share_is_zero() -> None:
    batch = complete_batch(ImportanceSampling(), [LONG, SHORT])
    empty = [replace(datum, inputs={**datum.inputs, "weights": 0 * datum.inputs["weights"]}) for datum in batch.datums]
    metrics = route_metrics([LONG, SHORT], {}, TEACHERS, [replace(batch, datums=tuple(empty))])
    assert [metrics[f"teacher_route/{name}/weight"] for name in ("a", "b", "idle")] == [0.0, 0.0, 0.0]


def test_refused_steps_have_no_weight() -> None:
    assert "teacher_route/a/weight" not in route_metrics([], {"a": 1}, TEACHERS, [])


def test_overlap_and_mass_are_means_over_active_tokens() -> None:
    masked = with_topk(LONG, [[1, 2], [1, 2], [9, 8]], [[2, 1], [3, 1], [7, 6]], [[0.5, 0.25], [0.5, 0.5], [0.2, 0.1]])
    single = with_topk(SHORT, [[4, 5]], [[6, 7]], [[0.25, 0.25]])
    scores = [next(iter(each.scores.values())) for each in (masked, single)]
    assert topk_overlap(scores) == pytest.approx((1 + 0.5 + 0) / 3)
    assert topk_mass(scores) == pytest.approx((0.75 + 1 + 0.5) / 3)
    metrics = route_metrics([masked, single], {}, TEACHERS, [complete_batch(ImportanceSampling(), [masked, single])])
    assert metrics["teacher_route/a/topk_overlap"] == pytest.approx(0.75)
    assert metrics["teacher_route/b/topk_mass"] == pytest.approx(0.5)
    assert "teacher_route/idle/topk_overlap" not in metrics


def test_the_smaller_k_counts_and_an_id_that_is_none_is_in_no_overlap() -> None:
    wide = with_topk(SHORT, [[4, 5, 6, 7]], [[5, 4]])
    none = with_topk(SHORT, [[4, -1, -1]], [[4, -1, -1]])
    assert topk_overlap([wide.scores["b"]]) == 1
    assert topk_overlap([none.scores["b"]]) == pytest.approx(1 / 3)


def test_where_an_array_is_missing_nothing_is_said() -> None:
    whole, part = with_topk(SHORT, [[4]], [[4]], [[0.5]]), with_topk(SHORT, None, [[4]])
    assert topk_overlap([part.scores["b"]]) is None
    assert topk_mass([part.scores["b"]]) is None
    assert topk_overlap([whole.scores["b"], part.scores["b"]]) is None
    assert topk_mass([whole.scores["b"], part.scores["b"]]) is None
    assert topk_mass([]) is topk_overlap([]) is None


def headroom(steps: Sequence[float], before: Sequence[float] = ()) -> list[float]:
    rows = [{"teacher_route/a/reverse_kl": gap, "train/reverse_kl": 9.0} for gap in (*before, *steps)]
    route = RouteHeadroom()
    route.remember([{"step": at, **row} for at, row in enumerate(rows[: len(before)])])
    found = [route.metrics(row) for row in rows[len(before) :]]
    assert all(each.keys() <= {"teacher_route/a/headroom"} for each in found)
    return [each["teacher_route/a/headroom"] for each in found if each]


def test_headroom_is_the_gap_now_over_the_gap_at_the_start() -> None:
    gaps = [2.0] * STEPS + [1.0] * STEPS
    assert headroom(gaps)[0] == headroom(gaps)[STEPS - 1] == 1
    assert headroom(gaps)[-1] == pytest.approx(0.5)
    assert headroom(gaps)[STEPS] == pytest.approx((2 * (STEPS - 1) + 1) / (2 * STEPS))
    assert headroom(gaps[4:], before=gaps[:4]) == headroom(gaps)[4:]
    assert headroom([1.0, 3.0, 3.0, 3.0, 3.0, 2.5])[-1] == pytest.approx(2.9 / 2.6)
    assert headroom([-0.1, 0.0, 0.1]) == []
    assert headroom([0.003, 0.3]) == pytest.approx([1.0])


def test_a_resumed_run_has_the_headroom_of_a_whole_one(fake_config: Callable[..., RunConfig]) -> None:
    train = {"prompt_groups_per_step": 1, "save_every": 1}
    whole = run(fake_config(name="whole", train=train)).metrics
    run(fake_config(name="parts", train={**train, "max_steps": 7}))
    parts = run(fake_config(name="parts", train=train), resume=True).metrics
    name = "teacher_route/t/headroom"
    assert [row.get(name) for row in parts] == [row.get(name) for row in whole]
    assert whole[-1][name] < 1
