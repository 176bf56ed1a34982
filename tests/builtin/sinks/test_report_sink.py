"""Every run leaves its report; one that cannot be written is a warning."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question
from helpers.html_outline import outline

import distillkit
from distillkit import Failure, Registry, RunConfig, RunResult, Score, ScoreRequest
from distillkit.errors import RunFailedError
from distillkit.run_directory.directory import WRITTEN
from distillkit.testing import FakeScorer, FakeStudent, check_plugin
from distillkit_builtin.sinks.report import ReportSink

Make = Callable[..., RunConfig]


def run(config: RunConfig, **options: Any) -> RunResult:
    return distillkit.run(config, plugins=[FakeStudent, FakeScorer], **options)


def text_of(run_dir: Path) -> str:
    return outline((run_dir / "report.html").read_text(encoding="utf-8")).all("main")[0].text


def test_the_plugin_is_well_formed() -> None:
    check_plugin(ReportSink())


def test_a_run_leaves_its_report(fake_config: Make, jsonl: Callable[..., str]) -> None:
    held_out = jsonl([question(f"held out {i}") for i in range(6)], "heldout.jsonl")
    result = run(fake_config(sinks=["report"], data={"eval_path": held_out, "epochs": 4}))
    said = text_of(result.run_dir)
    assert "completed" in said
    assert "It goes on" not in said
    assert "After 20 steps, on 6 held-out rows" in said
    assert result.summary["sink_errors"] == {}


def test_it_is_there_unless_sinks_are_named_without_it(fake_config: Make, tmp_path: Path) -> None:
    config = fake_config()
    values = {name: getattr(config, name) for name in config.model_fields_set - {"sinks"}}
    assert [sink.name for sink in RunConfig(**values).sinks] == ["console", "report"]
    assert not (run(config).run_dir / "report.html").exists()


class SilentScorer(FakeScorer):
    """A teacher that scores nothing, in words that are no HTML."""

    name: ClassVar[str] = "silent"

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        for request in requests:
            yield Failure(request, "<b>no answer</b>")


def test_a_run_that_failed_has_one_that_says_why(fake_config: Make, registry: Registry) -> None:
    registry.add(SilentScorer)
    config = fake_config(sinks=["report"], teachers=[{"model": "t", "scorer": {"name": "silent"}}])
    with pytest.raises(RunFailedError, match="max_failed_fraction"):
        run(config)
    said = text_of(Path(config.log_path.replace("{name}", "fake")))
    assert "failed" in said
    assert "more than train.max_failed_fraction=0.1 allows; reasons: <b>no answer</b>" in said


def test_a_run_that_goes_on_and_one_that_begins_anew_replace_it(fake_config: Make) -> None:
    first = run(fake_config(sinks=["report"], train={"max_steps": 2}))
    assert "steps trained2" in text_of(first.run_dir)
    run(fake_config(sinks=["report"], train={"max_steps": 4}), resume=True)
    assert "steps trained4" in text_of(first.run_dir)
    again = run(fake_config(sinks=["report"], train={"max_steps": 1}), overwrite=True)
    assert "steps trained1" in text_of(again.run_dir)
    run(fake_config(train={"max_steps": 1}), overwrite=True)
    assert not (first.run_dir / "report.html").exists()  # without the sink no older one stays
    assert "report.html" in WRITTEN


def test_a_report_that_cannot_be_written_is_a_warning(fake_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*runs: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("distillkit_builtin.sinks.report.write_report", fails)
    result = run(fake_config(sinks=["list", "report"]))
    assert result.summary["status"] == "completed"
    log = (result.run_dir / "run.log").read_text(encoding="utf-8")
    assert "WARNING sink 'report' could not be closed: OSError: no room" in log
