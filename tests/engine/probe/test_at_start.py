"""The probe of a run: when it takes place, what it leaves, and that no number depends on it."""

import json
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import read_jsonl
from pydantic import PrivateAttr

import distillkit
from distillkit import InputError, RunConfig, RunResult
from distillkit.events import Notice, RunFinished
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import ListSink
from engine.probe.faulty import LIKES, LONG, EndlessStudent, FakeScorer, JitteringScorer, Make, config_of

TIMES = "time/"


def run(config: RunConfig, **options: Any) -> RunResult:
    return distillkit.run(config, plugins=[ListSink], **options)


def numbers(result: RunResult) -> Any:
    metrics = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in result.metrics]
    ledger = [{k: v for k, v in row.items() if k != "time"} for row in read_jsonl(result.run_dir / "ledger.jsonl")]
    adapter = (result.run_dir / "adapter/fake.safetensors").read_bytes()
    return metrics, ledger, adapter, read_jsonl(result.run_dir / "samples.jsonl")


class CountingScorer(FakeScorer):
    """Has metrics that are counted since they were read last, as plugins over a network do."""

    name = "counting"
    _asked: int = PrivateAttr(0)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        self._asked += len(requests)
        async for score in super().score(requests):
            yield score

    def metrics(self) -> dict[str, float]:
        asked, self._asked = self._asked, 0
        return {"counting/asked": float(asked)}


def test_no_number_of_a_run_depends_on_whether_it_was_probed(fake_config: Make) -> None:
    def config(at_start: str) -> RunConfig:
        return config_of(fake_config, CountingScorer(likes=LIKES), name=at_start, probe={"at_start": at_start})

    probed, not_probed = run(config("always")), run(config("never"))
    assert numbers(probed) == numbers(not_probed)
    assert (probed.run_dir / "probe.json").is_file()
    assert not (not_probed.run_dir / "probe.json").exists()


@pytest.mark.parametrize(("epochs", "expected"), [(1, False), (60, True)])
def test_it_takes_place_where_it_takes_a_twentieth_of_the_tokens(
    fake_config: Make, epochs: int, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "distillkit")
    sink = ListSink()
    config = config_of(
        fake_config,
        data={"epochs": epochs},
        sampling={**LONG, "max_completion_tokens": 300},
        train={"prompt_groups_per_step": 100},
        sinks=[sink],
    )
    result = run(config)
    assert (result.run_dir / "probe.json").is_file() == expected
    told = [event.message for event in sink.events if isinstance(event, Notice) and "probe" in event.message]
    assert len(told) == expected  # sinks of a tiny run hear nothing of it
    lines = (result.run_dir / "run.log").read_text().splitlines()
    said = [line for line in lines if "INFO not probed: it would take " in line]
    assert len(said) == (not expected)
    assert all("% of the plan (5% at most); `distillkit check CONFIG --probe` measures" in line for line in said)


def test_what_it_found_is_in_a_file_in_the_log_and_told_to_the_sinks(fake_config: Make) -> None:
    sink = ListSink()
    scorer = JitteringScorer(likes=LIKES, size=2.0)
    result = run(config_of(fake_config, scorer, sinks=[sink], probe={"at_start": "always"}))
    written = json.loads((result.run_dir / "probe.json").read_text())
    assert written["figures"]["completions"] == 10
    assert "again" in [verdict["what"] for verdict in written["verdicts"]]
    told = [(event.kind, event.message) for event in sink.events if isinstance(event, Notice)]
    assert any(level == "warning" and "when it is asked again" in message for level, message in told)
    assert any(level == "note" and message.startswith("probe: 10 completions of 10 rows") for level, message in told)
    assert "when it is asked again" in (result.run_dir / "run.log").read_text()


@pytest.mark.parametrize(
    "fault", [{"student": EndlessStudent()}, {"scorer": JitteringScorer(likes=LIKES, size=20.0)}], ids=["end", "jitter"]
)
def test_a_refusal_ends_the_run_before_its_first_step_and_is_in_no_ones_way(
    fake_config: Make, tmp_path: Path, fault: dict[str, Any]
) -> None:
    sink = ListSink()
    config = config_of(fake_config, sinks=[sink], probe={"at_start": "always"}, **fault)
    with pytest.raises(InputError, match="the probe refuses this run, and nothing was trained") as caught:
        run(config)
    assert "probe.at_start: never" in str(caught.value)
    run_dir = tmp_path / "runs/fake"
    assert read_jsonl(run_dir / "metrics.jsonl") == []
    assert not (run_dir / "checkpoints").exists()
    assert json.loads((run_dir / "probe.json").read_text())["verdicts"][0]["level"] == "refuse"
    (finished,) = [event for event in sink.events if isinstance(event, RunFinished)]
    assert finished.summary["status"] == "failed"
    # the next run needs no --overwrite, and leaves no word of what was probed before
    result = run(config_of(fake_config, probe={"at_start": "never"}))
    assert result.steps == 5
    assert not (run_dir / "probe.json").exists()


@pytest.mark.parametrize(("at_start", "expected"), [("auto", 1), ("always", 2)])
def test_a_resume_is_probed_only_if_that_is_asked_for(fake_config: Make, at_start: str, expected: int) -> None:
    def config(sink: ListSink, steps: int) -> RunConfig:
        return config_of(
            fake_config,
            data={"epochs": 90},
            train={"prompt_groups_per_step": 300, "max_steps": steps},
            probe={"at_start": at_start, "rows": 8},
            sinks=[sink],
        )

    sinks = ListSink(), ListSink()
    run(config(sinks[0], 2))
    run(config(sinks[1], 3), resume=True)
    told = [event for sink in sinks for event in sink.events if isinstance(event, Notice)]
    assert sum(event.message.startswith("probe: 8 completions") for event in told) == expected


def test_a_resumed_run_may_have_other_options_for_its_probe(fake_config: Make) -> None:
    first = run(config_of(fake_config, train={"max_steps": 2}))
    assert (first.steps, run(config_of(fake_config, probe={"rows": 3}), resume=True).steps) == (2, 5)
