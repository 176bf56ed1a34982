"""What fails in a run, and what becomes of the run."""

import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import read_jsonl

from distillkit import EvalContext, Evaluator, RunConfig
from distillkit.errors import PluginError, RunFailedError
from distillkit.events import EvalResult, Event, RowValue, RunFinished, StepFinished
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import FakeScorer, FakeStudent, ListSink
from distillkit.types import SampleRequest
from engine.loop.fake_runs import run

Make = Callable[..., RunConfig]


class Flaky(FakeScorer):
    """Fails some rows."""

    lines: ClassVar[tuple[int, ...]] = (3,)
    samples: ClassVar[tuple[int, ...]] = (0, 1)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score(requests):
            key = score.request.key
            if int(key.row_id.split("-")[0]) in self.lines and key.sample in self.samples:
                yield Failure(score.request, "the server was busy", retryable=True)
            else:
                yield score


def flaky(**attributes: Any) -> FakeScorer:
    return type("Flaky", (Flaky,), {"__doc__": "Fails.", **attributes})()


def test_what_failed_is_in_the_ledger_and_the_rest_is_trained(fake_config: Make) -> None:
    result = run(fake_config(teachers=[{"model": "t", "scorer": flaky(samples=(1,))}]))
    assert (result.summary["failed_completions"], result.summary["trained_completions"]) == (1, 19)
    entry = next(e for e in read_jsonl(result.run_dir / "ledger.jsonl") if e["row_id"].startswith("3-"))
    assert entry["outcome"] == "trained"
    assert [one["outcome"] for one in entry["completions"]] == ["trained", "failed"]


def test_past_max_failed_fraction_the_run_fails_and_says_why(fake_config: Make) -> None:
    teachers = [{"model": "t", "scorer": flaky(lines=(3, 4, 5))}]
    with pytest.raises(RunFailedError, match=r"rows failed, more than .* the server was busy"):
        run(fake_config(teachers=teachers))
    summary = json.loads((Path(fake_config().log_path.replace("{name}", "fake")) / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "the server was busy" in summary["error"]


def test_a_run_in_which_nothing_trained_never_completes(fake_config: Make) -> None:
    teachers = [{"model": "t", "scorer": flaky(lines=tuple(range(1, 11)))}]
    with pytest.raises(RunFailedError, match="nothing was trained"):
        run(fake_config(teachers=teachers, train={"max_failed_fraction": 1.0}))


def test_an_exception_of_a_plugin_ends_the_run_and_everything_is_closed(fake_config: Make) -> None:
    closed: list[str] = []

    class Broken(FakeScorer):
        """A bug."""

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            raise ZeroDivisionError("a bug")
            yield

        async def close(self) -> None:
            closed.append("scorer")

    class Closing(FakeStudent):
        """Notes when it is closed."""

        async def close(self) -> None:
            closed.append("student")

    sink = ListSink()
    with pytest.raises(ZeroDivisionError):
        run(fake_config(teachers=[{"model": "t", "scorer": Broken()}], student=Closing(), sinks=[sink]))
    assert closed == ["scorer", "student"]
    assert isinstance(sink.events[-1], RunFinished)
    assert "ZeroDivisionError: a bug" in str(sink.events[-1].error)


class BadSink(ListSink):
    """Raises at every step."""

    name: ClassVar[str] = "bad"

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            raise RuntimeError("tracker is down")


def test_a_sink_that_fails_is_counted_and_ends_nothing(fake_config: Make) -> None:
    good = ListSink()
    result = run(fake_config(sinks=[BadSink(), good]))
    assert result.summary["sink_errors"] == {"bad": 5}
    assert "tracker is down" in (result.run_dir / "run.log").read_text()
    assert sum(isinstance(event, StepFinished) for event in good.events) == 5


def test_a_sampler_that_answers_wrongly_is_named(fake_config: Make) -> None:
    class Half(FakeStudent):
        """Answers half."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            async for rollout in super().sample(requests[::2]):
                yield rollout

    with pytest.raises(PluginError, match="Half gave no outcome for 2 of 4 requests"):
        run(fake_config(student=Half()))


def test_ids_that_the_tokenizer_does_not_have_are_no_completion(fake_config: Make, held_out: str) -> None:
    class Wide(FakeStudent):
        """Has more rows than its tokenizer has tokens, and draws one in its first step, and of a held-out row."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            async for one in super().sample(requests):
                assert isinstance(one, Rollout)
                ids = np.append(one.token_ids[:-1], 300)
                yield replace(one, token_ids=ids) if one.policy_version == 0 and not one.key.sample else one

    over = {"data": {"eval_path": held_out}, "evaluators": ["reverse_kl"], "student": Wide()}
    with pytest.raises(RunFailedError, match=r"token \d+ is id 300; the student's tokenizer has the ids 0 to 257"):
        run(fake_config(**over))
    result = run(fake_config(student=Wide()), overwrite=True)
    lost = [one for entry in read_jsonl(result.run_dir / "ledger.jsonl") for one in entry["completions"][:1]]
    assert [one["outcome"] for one in lost] == ["failed"] * 2 + ["trained"] * 8
    assert "is id 300" in lost[0]["reason"]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (EvalResult({"y": math.nan}), "'y' to be nan"),
        (EvalResult({"y": 1.0}, {"t": {"z": -math.inf}}), "'z' to be -inf"),
        (EvalResult({"y": 1.0}, {}, {"y": {"1-a": RowValue(math.inf)}}), "'by_row of y' to be inf"),
        (EvalResult({"y": 1.0}, {}, {"y": {"1-a": RowValue(1.0, math.nan)}}), "'by_row of y' to be nan"),
    ],
)
def test_an_evaluator_that_finds_no_finite_number_is_named(
    fake_config: Make, held_out: str, found: EvalResult, message: str
) -> None:
    class Dividing(Evaluator):
        """Divides by nothing."""

        name: ClassVar[str] = "dividing"

        async def evaluate(self, context: EvalContext) -> EvalResult:
            return found

    wanted = rf"evaluator 'dividing' \(.*Dividing\): evaluate\(\) found {message}, which is no finite number"
    with pytest.raises(PluginError, match=wanted):
        run(fake_config(data={"eval_path": held_out}, evaluators=[Dividing()]))


def test_a_run_that_cannot_be_opened_leaves_its_reason(fake_config: Make) -> None:
    class OutOfMemory(FakeStudent):
        """Cannot be opened."""

        async def open(self, run: Any) -> None:
            raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError) as caught:
        run(fake_config(student=OutOfMemory()))
    assert "raised by student 'fake'" in caught.value.__notes__[0]
    directory = Path(fake_config().log_path.replace("{name}", "fake"))
    assert "CUDA out of memory" in (directory / "run.log").read_text()
    assert "CUDA out of memory" in json.loads((directory / "summary.json").read_text())["error"]
