"""What a whole run says of itself at its end, and what its evaluations say on the way."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question

import distillkit
from distillkit import EvalContext, Evaluator, Measure, RowValue, RunConfig, RunResult
from distillkit.errors import PluginError
from distillkit.events import EvalResult, Evaluated
from distillkit.run_directory.directory import read_summary
from distillkit.testing import FakeScorer, FakeStudent, ListSink
from distillkit.verdict.completion_figures import COMPLETIONS
from distillkit.verdict.verdict_sentences import verdict_lines

Make = Callable[..., RunConfig]


class Fragile(FakeStudent):
    """Cannot write its final weights at the first try."""

    broken: ClassVar[bool] = True

    async def export(self, run_dir: Path) -> Path:
        if Fragile.broken:
            raise OSError("no space left on device")
        return await super().export(run_dir)


def run(config: RunConfig, **options: Any) -> RunResult:
    return distillkit.run(config, plugins=[FakeStudent, FakeScorer, ListSink], **options)


@pytest.fixture
def held_out(jsonl: Callable[..., str]) -> str:
    return jsonl([question(f"held out {i}") for i in range(8)], "heldout.jsonl")


def test_a_run_says_what_changed_on_the_same_held_out_rows(fake_config: Make, held_out: str) -> None:
    result = run(fake_config(data={"eval_path": held_out, "epochs": 8}))
    verdict = result.verdict
    assert (verdict.missing, verdict.step, verdict.warnings) == (None, 40, ())
    (route,) = verdict.routes
    found = {change.metric: change for change in route.changes}
    gap = found["reverse_kl"]
    assert gap.before == pytest.approx(result.eval["before"]["reverse_kl"])
    assert gap.after == pytest.approx(result.eval["after"]["reverse_kl"])
    assert (gap.rows, gap.outcome) == (8, "better")
    assert found["mean_length"].after == pytest.approx(result.eval["after"]["mean_length"])
    assert found["ended_fraction"].after == 1 - result.eval["after"]["truncated_fraction"]
    log = (result.run_dir / "run.log").read_text(encoding="utf-8")
    assert all(line in log for line in verdict_lines(verdict))
    assert read_summary(result.run_dir) == result.summary


def test_what_was_measured_before_training_comes_back_from_a_checkpoint(fake_config: Make, held_out: str) -> None:
    config = {"data": {"eval_path": held_out}, "evaluators": ["reverse_kl"]}
    Fragile.broken = True
    with pytest.raises(OSError, match="no space left"):
        run(fake_config(**config, student=Fragile(learning_rate=30.0)))
    Fragile.broken = False
    whole = run(fake_config(**config, name="whole", student={"name": "fake", "learning_rate": 30.0}))
    resumed = run(fake_config(**config, student=Fragile(learning_rate=30.0)), resume=True)
    assert resumed.verdict == whole.verdict
    assert resumed.eval == whole.eval
    assert resumed.verdict.missing is None


@pytest.mark.parametrize(("hold_out", "missing"), [(False, "held-out rows"), (True, "evaluators")])
def test_a_run_that_measures_nothing_says_that_nothing_tells(
    fake_config: Make, held_out: str, hold_out: bool, missing: str
) -> None:
    data = {"eval_path": held_out} if hold_out else {}
    result = run(fake_config(data={"epochs": 4, **data}, evaluators=[], guards={"window": 6}))
    assert result.verdict.missing == missing
    assert {change.metric for change in result.verdict.training} >= {"train/reverse_kl", "completions/repetition"}
    first = [row["train/reverse_kl"] for row in result.metrics][:6]
    assert result.verdict.training[0].before == pytest.approx(sum(map(float, first)) / 6)  # type: ignore[arg-type]


def test_a_student_that_is_driven_away_is_warned_of(fake_config: Make, held_out: str) -> None:
    student = {"name": "fake", "learning_rate": 3000.0}
    result = run(fake_config(student=student, data={"eval_path": held_out}, sampling={"max_completion_tokens": 40}))
    assert {"gap", "repetition"} <= {warning.decay for warning in result.verdict.warnings}
    assert "reverse_kl" in {change.metric for _, change in result.verdict.worse}


def test_a_run_that_ends_early_is_compared_at_its_newest_evaluation(fake_config: Make, held_out: str) -> None:
    Fragile.broken = True
    config = fake_config(
        student=Fragile(learning_rate=30.0), data={"eval_path": held_out}, train={"eval_every": 2, "max_steps": 3}
    )
    with pytest.raises(OSError, match="no space left"):
        run(config)
    summary = json.loads((Path(config.log_path.replace("{name}", "fake")) / "summary.json").read_text())
    assert (summary["verdict"]["missing"], summary["verdict"]["step"]) == (None, 2)


def test_each_evaluation_brings_what_there_was_before_and_what_people_call_it(fake_config: Make, held_out: str) -> None:
    sink = ListSink()
    run(fake_config(data={"eval_path": held_out}, sinks=[sink], train={"eval_every": 2}))
    first, *rest = [event for event in sink.events if isinstance(event, Evaluated)]
    assert first.before == {}
    assert len(rest) == 3
    assert all(event.before == first.results for event in rest)
    assert first.results.keys() == {"reverse_kl", COMPLETIONS}
    assert first.measures["reverse_kl"].label == "reverse KL, nats a token"
    assert first.measures["mean_length"].label == "mean length, tokens"


class Own(Evaluator):
    """Names a row that is not held out, or none; says what people call it, or not."""

    name: ClassVar[str] = "own"
    row: str = ""

    async def evaluate(self, context: EvalContext) -> EvalResult:
        values: Sequence[str] = [self.row] if self.row else [row.row_id for row in context.rows]
        return EvalResult({"my_rate": 1.0}, {}, {"my_rate": {row: RowValue(1.0) for row in values}})


class Described(Own):
    """Says what its metric is called."""

    measures: ClassVar[Mapping[str, Measure]] = {"my_rate": Measure("so many", "higher", "share")}


def test_a_row_that_is_not_held_out_is_refused(fake_config: Make, held_out: str) -> None:
    with pytest.raises(PluginError, match="evaluator 'own': `by_row` names '7-mars', which is no held-out row's id"):
        run(fake_config(data={"eval_path": held_out}, evaluators=[Own(row="7-mars")]))


def test_an_evaluator_of_ones_own_is_in_the_verdict_by_its_own_names_or_as_it_says(
    fake_config: Make, held_out: str
) -> None:
    for evaluator, label in ((Own(), "my rate"), (Described(), "so many")):
        verdict = run(fake_config(data={"eval_path": held_out}, evaluators=[evaluator]), overwrite=True).verdict
        assert [(change.label, change.outcome) for change in verdict.routes[0].changes] == [(label, "same")]
