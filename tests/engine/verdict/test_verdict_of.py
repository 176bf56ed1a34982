import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from distillkit.events import EvalResult, Measure, PolicyFigures, RowValue
from distillkit.run_directory.codec import from_json, to_json
from distillkit.testing import make_rollout, make_row, make_teacher
from distillkit.verdict.completion_figures import COMPLETION_MEASURES, COMPLETIONS, completion_figures
from distillkit.verdict.run_verdict import Change
from distillkit.verdict.verdict_of import Steps, verdict_of
from distillkit.verdict.verdict_sentences import WIDTH, Verdict, verdict_lines

TEACHERS = [make_teacher("math"), make_teacher("org/big", model="org/big")]
MEASURES = {
    "reverse_kl": Measure("reverse KL, nats a token", "lower"),
    "x": Measure("x"),
    "rate": Measure("right answers", "higher", "share"),
    **COMPLETION_MEASURES,
}
ROUTES = {f"{i}": "math" if i < 8 else "org/big" for i in range(16)}
NO_STEPS = Steps(12)


def figures(step: int, kl: Sequence[float], *, routes: Mapping[str, str] = ROUTES, **metrics: float) -> PolicyFigures:
    """`kl` holds the value of each row; `metrics` are without rows."""
    by_row = {row: RowValue(value * 10, 10.0) for row, value in zip(routes, kl, strict=True)}
    return PolicyFigures(step, {"reverse_kl": EvalResult(metrics, {}, {"reverse_kl": by_row})}, routes)


def compared(before: Sequence[float], after: Sequence[float], steps: Steps = NO_STEPS) -> Verdict:
    return verdict_of(figures(0, before), figures(12, after), MEASURES, TEACHERS, steps)


def jitter(level: float, count: int) -> list[float]:
    return [level + 0.01 * (i % 3) for i in range(count)]


FALLS = [*jitter(0.5, 8), *jitter(0.5, 8)], [*jitter(0.2, 7), 0.25, *jitter(0.4, 7), 0.5]
RISES = [*jitter(0.5, 8), *jitter(0.5, 8)], [*jitter(0.2, 7), 0.25, *jitter(0.9, 7), 1.0]


def test_each_route_is_compared_by_its_own_rows_and_called_as_people_call_it() -> None:
    verdict = compared(*RISES)
    math, big = verdict.routes
    assert (math.route, math.shown, math.rows) == ("math", "math", 8)
    assert (big.route, big.shown, big.rows) == ("org/big", "big", 8)
    assert [change.outcome for change in (*math.changes, *big.changes)] == ["better", "worse"]
    assert math.changes[0].after == pytest.approx((sum(jitter(0.2, 7)) + 0.25) / 8)
    assert verdict.overall is not None
    assert verdict.overall.changes[0].before == pytest.approx(sum(RISES[0]) / 16)
    assert [(name, change.metric) for name, change in verdict.worse] == [("big", "reverse_kl")]


def test_a_gap_that_rose_on_one_route_is_warned_of_though_it_fell_on_the_other() -> None:
    (warning,) = compared(*RISES).warnings
    assert (warning.decay, warning.route, warning.change.outcome) == ("gap", "org/big", "worse")
    assert compared(*FALLS).warnings == ()


def test_what_is_worse_over_all_rows_alone_is_worse() -> None:
    """Half of the routes' rows, each too little to tell by itself."""
    up = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    verdict = compared([0.5] * 16, [0.5 + each for each in up * 2])
    assert [route.changes[0].outcome for route in verdict.routes] == ["unclear", "unclear"]
    assert [name for name, _ in verdict.worse] == [""]
    assert [(warning.route, warning.decay) for warning in verdict.warnings] == [("", "gap")]


def test_what_is_better_over_all_rows_alone_is_not_said_to_be_no_better() -> None:
    down = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    verdict = compared([0.5 + each for each in down * 2], [0.5] * 16)
    assert {route.changes[0].outcome for route in verdict.routes} == {"unclear"}
    lines = verdict_lines(verdict)
    assert lines[-2].endswith(" better")
    assert lines[-1] == "Nothing got worse on the held-out rows by more than two standard errors."


def test_a_metric_without_rows_is_shown_without_an_error_and_one_that_never_changes_is_not() -> None:
    before, after = figures(0, FALLS[0], x=1.0, rate=0.5), figures(3, FALLS[1], x=1.0, rate=0.75, unnamed=3.0)
    verdict = verdict_of(before, after, MEASURES, TEACHERS, NO_STEPS)
    assert verdict.overall is not None
    found = {change.metric: change for change in verdict.overall.changes}
    assert found.keys() == {"reverse_kl", "rate"}
    assert (found["rate"].before, found["rate"].after) == (0.5, 0.75)
    assert (found["rate"].standard_error, found["rate"].rows, found["rate"].outcome) == (None, None, "unknown")


def test_completions_that_end_less_often_or_repeat_themselves_are_warned_of() -> None:
    rows = [make_row(line=line) for line in range(1, 9)]
    routes = {row.row_id: "math" for row in rows}

    def measured(step: int, ids: Sequence[int], reason: Any) -> PolicyFigures:
        rollouts = [replace(make_rollout(ids, row=row), finish_reason=reason) for row in rows]
        return PolicyFigures(step, {COMPLETIONS: completion_figures(rollouts, routes)}, routes)

    before, after = measured(0, range(20), "stop"), measured(4, [7] * 30, "length")
    assert before.results[COMPLETIONS].metrics == {
        "mean_length": 20.0,
        "ended_fraction": 1.0,
        "repetition": 0.0,
        "truncated_fraction": 0.0,
    }
    assert after.results[COMPLETIONS].routes["math"]["truncated_fraction"] == 1.0
    verdict = verdict_of(before, after, MEASURES, TEACHERS, NO_STEPS)
    assert {warning.decay for warning in verdict.warnings} == {"endings", "repetition"}
    outcomes = {change.metric: change.outcome for change in verdict.routes[0].changes}
    assert outcomes == {"mean_length": "changed", "ended_fraction": "worse", "repetition": "worse"}
    assert verdict_of(after, before, MEASURES, TEACHERS, NO_STEPS).warnings == ()


@pytest.mark.parametrize(
    ("missing", "before", "after", "says"),
    [
        ("held-out rows", None, None, "Set data.eval_path"),
        ("evaluators", None, None, "`evaluators` is empty"),
        ("before", None, figures(12, FALLS[1]), "measured before training are not there"),
        ("after", figures(0, FALLS[0]), None, "set train.eval_every"),
    ],
)
def test_where_nothing_can_be_compared_that_is_said_and_what_to_do(
    missing: Any, before: PolicyFigures | None, after: PolicyFigures | None, says: str
) -> None:
    reason = missing if before is None and after is None else None
    verdict = verdict_of(before, after, MEASURES, TEACHERS, NO_STEPS, reason)
    assert (verdict.missing, verdict.overall, verdict.routes, verdict.step) == (missing, None, (), 12)
    said = " ".join(verdict_lines(verdict))
    assert said.startswith("Nothing tells whether it worked: ")
    assert says in said


def steps(first: float, newest: float, name: str = "train/reverse_kl") -> Steps:
    def rows(level: float) -> list[dict[str, float | None]]:
        return [{name: value, "other": None} for value in jitter(level, 6)]

    return Steps(12, rows(first), rows(newest))


@pytest.mark.parametrize("held_out", [False, True])
def test_training_itself_warns_too(held_out: bool) -> None:
    for name, decay in (
        ("train/reverse_kl", "gap"),
        ("completions/truncated_fraction", "endings"),
        ("completions/repetition", "repetition"),
    ):
        before, after = (figures(0, FALLS[0]), figures(12, FALLS[1])) if held_out else (None, None)
        reason: Any = None if held_out else "held-out rows"
        verdict = verdict_of(before, after, MEASURES, TEACHERS, steps(0.2, 0.5, name), reason)
        assert [(warning.decay, warning.shown) for warning in verdict.warnings] == [(decay, "training")]
        assert verdict_of(before, after, MEASURES, TEACHERS, steps(0.5, 0.2, name), reason).warnings == ()


def test_the_words_are_those_of_the_figures() -> None:
    lines = verdict_lines(compared(*RISES))
    assert "code" not in " ".join(lines)
    assert lines[2:6] == (
        "math, 8 rows",
        "  reverse KL, nats a token       0.509 -> 0.214  -0.295 ± 0.005  better",
        "big, 8 rows",
        "  reverse KL, nats a token       0.509 -> 0.920  +0.411 ± 0.011  WORSE",
    )
    assert "What got worse on the held-out rows: reverse KL, nats a token (big)." in lines
    assert any(line.startswith("warning: the gap to the teachers rose") for line in lines)
    assert verdict_lines(compared(*FALLS))[-1].startswith("Nothing got worse on the held-out rows")


def test_every_line_that_says_worse_is_named_below() -> None:
    verdict = compared(jitter(0.5, 16), jitter(0.9, 16))
    said = " ".join(verdict_lines(verdict))
    assert said.count("WORSE") == 3
    assert "What got worse on the held-out rows: reverse KL, nats a token (math, big, all)." in said


def test_rows_that_got_no_worse_do_not_contradict_a_warning_of_training() -> None:
    lines = verdict_lines(compared(*FALLS, steps=steps(0.2, 0.5, "completions/truncated_fraction")))
    at = lines.index("Nothing got worse on the held-out rows by more than two standard errors.")
    warning = " ".join(lines[at + 1 :])
    assert warning.startswith("warning: fewer completions end by themselves")
    assert "training 20" in warning.replace("training 21", "training 20")


@pytest.mark.parametrize("steps_seen", [NO_STEPS, steps(0.2, 0.5)])
def test_lines_fit_a_terminal(steps_seen: Steps) -> None:
    odd = replace(MEASURES["reverse_kl"], label="a measure with a name that goes on and on")
    names = [make_teacher("a teacher with a name that is longer than any terminal " * 2), TEACHERS[1]]
    routes = dict.fromkeys(ROUTES, names[0].name)
    before, after = figures(0, [0.1] * 16, routes=routes), figures(1, [-9000.0, 9999.0] * 8, routes=routes)
    verdict = verdict_of(before, after, MEASURES | {"reverse_kl": odd}, names, steps_seen)
    assert "not told apart" in " ".join(verdict_lines(verdict))
    assert all(len(line) <= WIDTH for line in verdict_lines(verdict))
    nothing = verdict_of(None, None, MEASURES, names, steps_seen, "held-out rows")
    assert all(len(line) <= WIDTH for line in verdict_lines(nothing))


def test_few_rows_are_said_to_be_too_few() -> None:
    routes = dict.fromkeys("12345", "math")
    verdict = verdict_of(
        figures(0, [0.5] * 5, routes=routes), figures(1, [0.1] * 5, routes=routes), MEASURES, TEACHERS, NO_STEPS
    )
    assert "cannot be told: it takes six held-out rows of a route or more." in " ".join(verdict_lines(verdict))
    without = replace(figures(1, [0.1] * 5, routes=routes), results={"mine": EvalResult({"reverse_kl": 0.1})})
    before = replace(figures(0, [0.5] * 5, routes=routes), results={"mine": EvalResult({"reverse_kl": 0.5})})
    said = " ".join(verdict_lines(verdict_of(before, without, MEASURES, TEACHERS, NO_STEPS)))
    assert "or more, and evaluators that say what each row gave (`EvalResult.by_row`)." in said


def test_a_change_knows_its_difference() -> None:
    change = Change("m", "m", "number", 1.0, 3.5, None, None, "unknown")
    assert change.difference == 2.5


def test_a_verdict_is_printed_as_the_last_lines_of_its_run_and_shown_in_one_line() -> None:
    for verdict in (compared(*RISES), verdict_of(None, None, MEASURES, TEACHERS, NO_STEPS, missing="evaluators")):
        assert f"{verdict}".splitlines() == [*verdict_lines(verdict)]
        assert "\n" not in repr(verdict)
    assert repr(compared(*RISES)) == "<Verdict after 12 steps, on 16 held-out rows: 1 better, 1 worse, 1 warning>"
    assert "missing: evaluators" in repr(verdict)


def test_what_is_no_finite_number_is_left_out_and_said_to_be_and_written_nowhere() -> None:
    nan = float("nan")
    steps = Steps(12, [{"train/reverse_kl": nan}] * 3, [{"train/reverse_kl": None}] * 3)
    huge = [1e308] * 16
    verdict = compared(huge, huge, steps)
    assert verdict.left_out == ("reverse KL, nats a token",)
    assert all(change.metric != "reverse_kl" for route in verdict.routes for change in route.changes)
    written = json.dumps(to_json(verdict)).lower()
    assert "nan" not in written
    assert "inf" not in written
    said = " ".join(verdict_lines(verdict))
    assert "Left out, since what was measured is no finite number: reverse KL, nats a token." in said
    assert "nan" not in said
    assert compared(*FALLS).left_out == ()


def test_a_summary_of_an_older_version_is_read() -> None:
    written = to_json(compared(*FALLS))
    del written["left_out"]
    assert from_json(Verdict, written) == compared(*FALLS)
