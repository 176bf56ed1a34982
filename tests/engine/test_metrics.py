import pytest

from distillkit.errors import PluginError
from distillkit.events import EvalResult
from distillkit.metrics import eval_metrics, reverse_kl, route_shown, step_metrics
from distillkit.testing import complete_batch, make_rollout, make_row, make_scored, make_teacher
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

ROWS = [make_row(str(line), line=line) for line in (1, 2)]
SCORED = [
    make_scored(make_rollout([1, 2, 3], [-1.0, -2.0, -9.0], row=ROWS[0], mask=[True, True, False]), [-2.0, -2.5, 0.0]),
    make_scored(make_rollout([4], [-0.5], row=ROWS[1]), [-0.25], teacher="other"),
]


def test_reverse_kl_is_the_mean_gap_of_active_tokens() -> None:
    assert reverse_kl(SCORED) == pytest.approx(
        {"reverse_kl": (1.0 + 0.5 - 0.25) / 3, "reverse_kl_per_completion": (1.5 - 0.25) / 2}
    )
    assert reverse_kl([]) == {}


def test_step_metrics_have_the_names_of_the_design() -> None:
    metrics = step_metrics(SCORED, [complete_batch(ImportanceSampling(scale=2.0), SCORED)])
    assert metrics == pytest.approx(
        {
            "train/reverse_kl": 1.25 / 3,
            "train/teacher_nll": 4.75 / 3,
            "train/sampling_nll": 3.5 / 3,
            "train/active_tokens": 3.0,
            "completions/mean_length": 2.0,
            "completions/repetition": 0.0,
            "completions/truncated_fraction": 0.0,
            "train/advantage": -2.5 / 3,
            "train/abs_advantage": 3.5 / 3,
        }
    )
    assert step_metrics([], []) == {}


def test_routes_are_columns_that_a_user_types() -> None:
    teachers = [make_teacher("math"), make_teacher("code")]
    result = EvalResult({"x": 1.0}, {"math": {"x": 2.0}, "math+code": {"x": 3.0}})
    assert eval_metrics({"e": result}, teachers) == {
        "eval/x": 1.0,
        "eval_route/math/x": 2.0,
        "eval_route/math+code/x": 3.0,
    }


def test_a_metric_that_is_measured_twice_is_refused_by_both_names() -> None:
    results = {"mine": EvalResult({"mean_length": 1.0}), "the student's completions": EvalResult({"mean_length": 1.0})}
    with pytest.raises(PluginError, match="eval/mean_length is measured twice, by 'mine' and \"the student's compl"):
        eval_metrics(results, [])


def test_people_read_a_route_by_the_names_of_its_teachers() -> None:
    teachers = [make_teacher("org/big", model="org/big"), make_teacher("math")]
    assert [route_shown(label, teachers) for label in ("org/big", "math+org/big", "gone")] == [
        "big",
        "math+big",
        "gone",
    ]
