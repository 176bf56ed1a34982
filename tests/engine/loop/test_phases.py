"""What a run says that it does, from loading to the final weights."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
from conftest import question

import distillkit
from distillkit import RunConfig
from distillkit.events import Evaluated, PhaseProgress, PhaseStarted, RunStarted, StepFinished
from distillkit.testing import FakeScorer, FakeStudent, ListSink

Make = Callable[..., RunConfig]


def events(config: RunConfig) -> list[Any]:
    (sink,) = config.sinks
    distillkit.run(config, plugins=[FakeStudent, FakeScorer, ListSink])
    assert isinstance(sink, ListSink)
    return list(sink.events)


@pytest.fixture
def held_out(jsonl: Callable[..., str]) -> str:
    return jsonl([question(f"held out {i}") for i in range(3)], "heldout.jsonl")


def test_everything_that_may_take_long_is_said_before_it_begins(fake_config: Make, held_out: str) -> None:
    teachers = [{"model": "org/big", "scorer": {"name": "fake"}}]
    train = {"max_steps": 1, "save_every": 1}
    heard = events(fake_config(sinks=[ListSink()], data={"eval_path": held_out}, train=train, teachers=teachers))
    kinds = (PhaseStarted, RunStarted, StepFinished, Evaluated)
    said = [event for event in heard if isinstance(event, kinds)]
    names = [event.phase if isinstance(event, PhaseStarted) else type(event).__name__ for event in said]
    assert [name for name, _ in groupby(names)] == [
        "load",
        "RunStarted",
        "publish",
        "evaluate",
        "Evaluated",
        "sample",
        "train",
        "publish",
        "StepFinished",
        "save",
        "export",
        "evaluate",
        "Evaluated",
    ]
    loaded = [event.what for event in said if isinstance(event, PhaseStarted) and event.phase == "load"]
    assert loaded[-3:] == ["student", "teacher big", "evaluator reverse_kl"]
    assert {event.what for event in said if isinstance(event, PhaseStarted) and event.phase == "evaluate"} == {
        "reverse_kl"
    }


def test_a_probe_is_said(fake_config: Make) -> None:
    heard = events(fake_config(sinks=[ListSink()], probe={"at_start": "always", "rows": 2}, train={"max_steps": 1}))
    phases = [event.phase for event in heard if isinstance(event, PhaseStarted)]
    assert phases[phases.index("publish") : phases.index("sample")] == ["publish", "probe"]


@pytest.mark.parametrize("evaluator", ["reverse_kl", {"name": "exact_match"}])
def test_an_evaluation_says_how_far_it_is_whatever_it_asks_for(
    fake_config: Make, jsonl: Callable[..., str], evaluator: Any
) -> None:
    held_out = jsonl([question(f"held out {i}", expected_answer=1) for i in range(3)], "answers.jsonl")
    config = fake_config(
        sinks=[ListSink()], data={"eval_path": held_out}, train={"max_steps": 1}, evaluators=[evaluator]
    )
    heard = events(config)
    first = next(index for index, event in enumerate(heard) if isinstance(event, Evaluated))
    progress = [event for event in heard[:first] if isinstance(event, PhaseProgress)]
    wanted = {"sample", "score"} if evaluator == "reverse_kl" else {"sample"}
    assert {event.phase for event in progress} == wanted
    for phase in wanted:
        assert [(event.done, event.total) for event in progress if event.phase == phase] == [(1, 3), (2, 3), (3, 3)]
