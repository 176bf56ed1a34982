"""Runs of student `fireworks` on a service that hangs or whose trainer is dead, and what a run samples from."""

import json
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import read_jsonl
from loopback.fireworks.sdk_calls import require_close

import distillkit
from builtin.fireworks.runs import make_config, nothing_is_left
from distillkit import RunConfig
from distillkit.errors import RunFailedError

pytest.importorskip("fireworks.training.sdk")

from fireworks.training.sdk import DeploymentManager
from fireworks.training.sdk.fireworks_client import FireworksClient
from safetensors.torch import load_file

from distillkit_loopback.fireworks import faults

if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

TRAINED = ["trained"] * 4
"""The rows of one step."""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK asks every 50 ms what it else asks every 5 or 10 s."""
    wait = DeploymentManager.wait_for_hotload
    monkeypatch.setattr(wait, "__defaults__", (*(wait.__defaults__ or ())[:-1], 0.05))


def ledger(run_dir: Path) -> dict[int, list[str]]:
    """The outcomes of each step's rows."""
    outcomes: dict[int, list[str]] = {}
    for entry in read_jsonl(run_dir / "ledger.jsonl"):
        outcomes.setdefault(entry["step"], []).append(entry["outcome"])
    return outcomes


def reasons(run_dir: Path) -> set[str]:
    entries = read_jsonl(run_dir / "ledger.jsonl")
    return {
        completion["reason"]
        for entry in entries
        for completion in entry["completions"]
        if completion["outcome"] == "failed"
    }


def status(run_dir: Path) -> str:
    return str(json.loads((run_dir / "summary.json").read_text())["status"])


def bodies(service: "LoopbackService", path: str) -> list[Any]:
    """Of all POSTs to paths that end so."""
    return [request.body for request in service.requests if request.method == "POST" and request.path.endswith(path)]


def sampled_between_hot_loads(service: "LoopbackService") -> list[int]:
    """How many completions the student's deployment was asked for before, between and after its hot loads."""
    counts = [0]
    for request in service.requests:
        if request.method == "POST" and request.path.endswith("/hot_load"):
            counts.append(0)
        elif request.path.endswith("/completions") and "-student-" in request.model:
            counts[-1] += 1
    return counts


def no_thread_is_left(seconds: float = 10.0) -> bool:
    """Calls that the run gave up may take a moment to see that nobody waits for them."""
    until = time.monotonic() + seconds
    while left := any(thread.name.startswith("fireworks: ") for thread in threading.enumerate()):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return not left


def test_a_hot_load_that_never_ends_fails_the_run_in_time(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    service.faults.add(faults.NeverDone(), after=1, where="POST .*/hot_load$")
    run_dir = tmp_path / "runs/fw"
    student, train = {"timeouts": {"weight_sync": 1}}, {"save_every": 1}
    config = make_config(service, tmp_path, tiny_model, student=student, train=train)
    started = time.monotonic()
    with pytest.raises(RunFailedError) as caught:
        distillkit.run(config)
    assert time.monotonic() - started < 300  # and not the SDK's ten minutes
    what = r"step-2 to deployment \S+ \(student\.timeouts\.weight_sync: 1 s\): Hotload failed.*snapshot 'step-2-\w+'"
    assert re.search(rf"{what}.*trainer dk-fw-trainer-\w+ is RUNNING.*--resume", str(caught.value))
    assert ledger(run_dir) == {1: TRAINED, 2: TRAINED}
    assert status(run_dir) == "failed"
    assert nothing_is_left(service)
    assert no_thread_is_left()
    assert distillkit.run(config, resume=True).steps == 2
    assert ledger(run_dir) == {1: TRAINED, 2: TRAINED}
    assert nothing_is_left(service)


def test_a_promotion_that_never_ends_fails_the_run_and_a_resumed_one_promotes_again(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.faults.add(faults.NeverDone(), where="POST .*:promote$")
    run_dir = tmp_path / "runs/fw"

    def config(seconds: float) -> RunConfig:
        student = {"timeouts": {"promotion": seconds}, "output_model_id": "my-model"}
        return make_config(service, tmp_path, tiny_model, student=student)

    with monkeypatch.context() as hurried:
        waiting = {"timeout_s": 0.5, "poll_interval_s": 0.05}  # its thread waits on when the run does not
        hurried.setattr(FireworksClient._wait_for_operation, "__kwdefaults__", waiting)
        with pytest.raises(RunFailedError) as caught:
            distillkit.run(config(0.2))
    what = r"promoting accounts/loopback/rlorTrainerJobs/dk-fw-trainer-\w+/checkpoints/final-\w+ to 'my-model'"
    assert re.search(rf"{what}: no response within 0\.2 s", str(caught.value))
    assert ledger(run_dir) == {1: TRAINED, 2: TRAINED}
    assert status(run_dir) == "failed"
    assert nothing_is_left(service)
    assert no_thread_is_left()
    steps = len(bodies(service, "/optim_step"))
    result = distillkit.run(config(7200.0), resume=True)
    assert json.loads((result.adapter_path / "model.json").read_text())["model"] == "accounts/loopback/models/my-model"
    assert len(bodies(service, "/optim_step")) == steps
    assert status(run_dir) == "completed"
    assert nothing_is_left(service)


def test_a_step_that_goes_to_a_dead_trainer_is_entered_as_failed_and_trained_after_a_resume(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillkit_builtin.fireworks.trainer_watch.LOOK_SECONDS", 0.2)
    service.faults.add(faults.Dies("out of memory"), after=1, where="POST .*/forward_backward$")
    run_dir = tmp_path / "runs/fw"
    config = make_config(service, tmp_path, tiny_model, train={"save_every": 1})
    with pytest.raises(RunFailedError) as caught:
        distillkit.run(config)
    what = r"a training step: the trainer died; trainer dk-fw-trainer-\w+ is FAILED"
    assert re.search(rf"{what}.*last checkpoint with --resume", str(caught.value))
    assert ledger(run_dir) == {1: TRAINED, 2: ["failed"] * 4}
    assert reasons(run_dir) == {f"the run ended: RunFailedError: {caught.value}"}
    assert status(run_dir) == "failed"
    assert nothing_is_left(service)
    assert no_thread_is_left()
    assert distillkit.run(config, resume=True).steps == 2
    assert len(bodies(service, "/load_weights")) == 1
    assert ledger(run_dir) == {1: TRAINED, 2: TRAINED}
    assert nothing_is_left(service)


@pytest.mark.parametrize(("interval", "versions"), [(2, [0, 0, 2, 2]), (3, [0, 0, 0, 3])])
def test_weights_are_published_every_so_many_steps_and_after_the_last(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, interval: int, versions: list[int]
) -> None:
    train = {"weight_sync_interval": interval, "sample_every": 1, "samples_per_route": 8}
    result = distillkit.run(make_config(service, tmp_path, tiny_model, data={"epochs": 2}, train=train))
    samples = read_jsonl(result.run_dir / "samples.jsonl")
    assert {(sample["step"], sample["policy_version"]) for sample in samples} == set(enumerate(versions, start=1))
    loaded = [body["identity"].rpartition("-")[0] for body in bodies(service, "/hot_load")]
    assert loaded == [f"step-{interval}", "step-4"]
    assert sampled_between_hot_loads(service) == [8 * interval, 8 * (4 - interval), 0]
    assert ledger(result.run_dir) == dict.fromkeys((1, 2, 3, 4), TRAINED)
    assert nothing_is_left(service)
    assert no_thread_is_left()


def test_two_runs_of_one_config_sample_the_same_and_end_on_the_same_weights(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    """Trainer and deployments have other random ids in each run, and requests arrive in another order."""
    batches, weights = [], []
    for name in ("first", "second"):
        before = len(bodies(service, "/forward_backward"))
        config = make_config(service, tmp_path, tiny_model, name=name, student={"output_model_id": name})
        result = distillkit.run(config)
        sent = bodies(service, "/forward_backward")[before:]
        batches.append([datum["model_input"] for body in sent for datum in body["forward_backward_input"]["data"]])
        model = json.loads((result.adapter_path / "model.json").read_text())["model"]
        weights.append(load_file(service.path(model) / "adapter_model.safetensors"))
    assert len(batches[0]) == 16
    assert batches[0] == batches[1]
    require_close(*weights)
