"""What a service that fails does to a run of student `fireworks`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import read_jsonl

import distillkit
from builtin.fireworks.runs import make_config, nothing_is_left
from distillkit.errors import AlignmentError, RunFailedError

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


@pytest.mark.parametrize("effect", ["WrongIds", "NullLogprob", "MissingLogprobs", "FewerLogprobs"])
def test_wrong_ids_and_missing_logprobs_end_the_run(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, effect: str
) -> None:
    from distillkit_loopback.fireworks import faults

    service.faults.add(getattr(faults, effect)(), after=3, where="POST .*/completions$")
    with pytest.raises(AlignmentError):
        distillkit.run(make_config(service, tmp_path, tiny_model))
    assert nothing_is_left(service)
    assert "AlignmentError" in (tmp_path / "runs/fw/ledger.jsonl").read_text()  # the rows in flight, and why they ended


def test_a_storm_of_503_loses_only_what_it_hit_and_the_ledger_says_what(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fireworks.training.sdk import DeploymentSampler

    from distillkit_loopback.fireworks.faults import Status

    monkeypatch.setattr(DeploymentSampler, "_RETRY_MAX_ATTEMPTS", 1)
    service.faults.add(Status(503, retry_after=0.01), times=3, where="POST .*/completions$")
    result = distillkit.run(make_config(service, tmp_path, tiny_model, train={"max_failed_fraction": 0.9}))
    assert result.summary["failed_completions"] == 3
    assert result.summary["trained_completions"] == 13
    entries = read_jsonl(tmp_path / "runs/fw/ledger.jsonl")
    reasons = [
        completion["reason"]
        for entry in entries
        for completion in entry["completions"]
        if completion["outcome"] == "failed"
    ]
    assert len(reasons) == 3
    assert all("HTTP 503" in reason for reason in reasons)
    assert nothing_is_left(service)


def test_a_short_storm_is_ridden_out(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    from distillkit_loopback.fireworks.faults import CutStream, Hangup, Status

    service.faults.add(Status(503, retry_after=0.01), times=2, where="POST .*/completions$")
    service.faults.add(Status(429), times=2, where="POST .*/completions$")
    service.faults.add(CutStream(), times=2, where="POST .*/completions$")
    service.faults.add(Hangup(), times=2, where="POST .*/completions$")
    service.faults.add(Hangup(applied=True), where="POST .*/optim_step$")
    service.faults.add(Status(500), where="POST .*/forward_backward$")
    result = distillkit.run(make_config(service, tmp_path, tiny_model))
    assert result.summary["failed_completions"] == 0
    assert result.steps == 2


@pytest.mark.parametrize(
    ("path", "effect"),
    [("/forward_backward$", "Fails"), ("/forward_backward$", "Status"), ("/retrieve_future$", "Dies")],
    ids=["failed", "refused", "dead trainer"],
)
def test_a_failed_step_names_the_trainer_and_the_way_on(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, path: str, effect: str
) -> None:
    from distillkit_loopback.fireworks import faults

    effects: dict[str, Any] = {
        "Fails": faults.Fails(),
        "Status": faults.Status(400, message="no such loss"),
        "Dies": faults.Dies(),
    }
    after = 1 if effect == "Dies" else 0  # the first future is the model's
    times = 2 if effect == "Fails" else 1  # from the first one the run recovers
    service.faults.add(effects[effect], times=times, after=after, where=f"POST .*{path}")
    with pytest.raises(RunFailedError, match=r"a training step.*trainer dk-fw-trainer-\w+ is \w+.*--resume"):
        distillkit.run(make_config(service, tmp_path, tiny_model, student={"timeouts": {"step": 1.0}}))
    assert nothing_is_left(service)


def test_a_trainer_that_dies_in_silence_is_noticed_before_the_time_out(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit_loopback.fireworks.faults import Dies

    monkeypatch.setattr("distillkit_builtin.fireworks.trainer_watch.LOOK_SECONDS", 0.2)
    service.faults.add(Dies(), after=1, where="POST .*/retrieve_future$")
    with pytest.raises(RunFailedError, match="the trainer died"):
        distillkit.run(make_config(service, tmp_path, tiny_model))
    assert nothing_is_left(service)
