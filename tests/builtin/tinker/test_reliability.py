"""What student `tinker` promises when something goes wrong, on a service that misbehaves."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from conftest import read_jsonl

import distillkit
from builtin.tinker.compared_runs import STEPS, config_of, require_same
from builtin.tinker.conftest import Start
from distillkit.errors import AlignmentError, RunFailedError

pytest.importorskip("tinker")
if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService


@pytest.fixture
def models(tiny_model: str, other_tiny_model: str) -> tuple[str, str]:
    """Student's tokenizer, and teacher."""
    return tiny_model, other_tiny_model


@pytest.fixture
def calm(start: Start, tmp_path: Path, models: tuple[str, str]) -> "distillkit.RunResult":
    """A run on which nothing fails."""
    folder = tmp_path / "calm"
    folder.mkdir()
    return distillkit.run(config_of(start("hosted"), folder, models, "calm"))


def nothing_is_left(service: "TinkerService") -> bool:
    return not service.sessions and not service.unfinished and not service.snapshots


def test_a_run_leaves_nothing_but_its_checkpoints_and_sends_no_telemetry(
    start: Start, tmp_path: Path, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start("hosted")
    monkeypatch.delenv("TINKER_TELEMETRY")  # as of a user who does not know of it
    before = set(threading.enumerate())
    distillkit.run(config_of(service, tmp_path, models, "tinker"))
    assert nothing_is_left(service)
    assert [*service.finished.values()] == ["success"]
    names = [path.rpartition("/")[2] for path in service.checkpoints]
    assert len(set(names)) == len(names) >= STEPS
    assert "/api/v1/telemetry" not in service.traffic.counts
    assert service.traffic.counts["/api/v1/optim_step"] == STEPS
    left = [each for each in threading.enumerate() if each not in before and not each.daemon]
    assert not left


@pytest.mark.parametrize("path", ["forward_backward", "optim_step", "save_weights_for_sampler", "save_weights"])
def test_what_fails_at_the_server_ends_the_run_which_goes_on_as_if_it_had_not(
    start: Start, tmp_path: Path, models: tuple[str, str], calm: "distillkit.RunResult", path: str
) -> None:
    from distillkit_loopback.training.faults import Fails

    service = start("hosted")
    service.faults.add(Fails("a GPU fell off"), after=3, where=f"{path}$")
    config = config_of(service, tmp_path, models, "troubled")
    with pytest.raises(RunFailedError, match=r"a GPU fell off"):
        distillkit.run(config)
    assert nothing_is_left(service)
    assert [*service.finished.values()] == ["errored"]
    distillkit.run(config, resume=True)
    assert [*service.finished.values()] == ["errored", "success"]
    require_same(tmp_path / "runs/troubled", calm)


def test_what_the_sdk_tries_again_changes_no_number(
    start: Start, tmp_path: Path, models: tuple[str, str], calm: "distillkit.RunResult"
) -> None:
    from distillkit_loopback.transport.faults import Delay, Hangup, Status

    service = start("hosted")
    for path in ("asample", "forward_backward", "optim_step", "save_weights_for_sampler", "retrieve_future"):
        faults: tuple[Status | Hangup | Delay, ...] = (Status(503), Hangup(), Hangup(applied=True), Delay(0.2))
        for number, fault in enumerate(faults):
            service.faults.add(fault, after=3 * number, where=f"{path}$")
    distillkit.run(config_of(service, tmp_path, models, "troubled"))
    require_same(tmp_path / "runs/troubled", calm)
    assert nothing_is_left(service)


def test_a_dead_server_is_named_in_time_and_the_run_goes_on_with_another(
    start: Start, tmp_path: Path, models: tuple[str, str], calm: "distillkit.RunResult"
) -> None:
    from distillkit_loopback.tinker.faults import Dies

    kept = tmp_path / "server"
    kept.mkdir()
    dying, timeouts = start("hosted", folder=kept), {"step": 2.0, "request": 20.0, "weight_sync": 20.0}
    dying.faults.add(Dies(), after=2, where="optim_step$")
    began = time.monotonic()
    with pytest.raises(RunFailedError, match=r"a training step: no response within 2 s.*--resume"):
        distillkit.run(config_of(dying, tmp_path, models, "troubled", student={"timeouts": timeouts}))
    assert time.monotonic() - began < 60
    other = start("hosted", folder=kept)
    distillkit.run(config_of(other, tmp_path, models, "troubled"), resume=True)
    require_same(tmp_path / "runs/troubled", calm)


def test_a_server_that_is_not_there_is_said_before_anything_is_made(
    start: Start, tmp_path: Path, models: tuple[str, str]
) -> None:
    service = start("skyrl")
    config = config_of(service, tmp_path, models, "absent")
    service.stop()
    with pytest.raises(distillkit.InputError, match=r"student.*healthz: .*refused.*is the server up"):
        distillkit.run(config)


def test_completions_that_fail_cost_their_rows_and_the_ledger_adds_up(
    start: Start, tmp_path: Path, models: tuple[str, str]
) -> None:
    from distillkit_loopback.training.faults import Fails

    service = start("hosted")
    service.faults.add(Fails("no room", "user"), times=2, after=12, where="asample$")
    train = {"max_failed_fraction": 0.5}
    result = distillkit.run(config_of(service, tmp_path, models, "troubled", train=train))
    ledger = read_jsonl(result.run_dir / "ledger.jsonl")
    completions = Counter(each["outcome"] for entry in ledger for each in entry["completions"])
    assert sum(completions.values()) == 16
    assert completions["trained"] == result.summary["trained_completions"] == 14
    reasons = {each["reason"] for entry in ledger for each in entry["completions"] if each["outcome"] == "failed"}
    assert all("no room" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("MissingLogprobs", "no logprobs came back"),
        ("FewerLogprobs", r"\d logprobs came back for \d tokens"),
        ("NaNLogprob", "the logprob of token .* is nan"),
    ],
)
def test_a_completion_without_its_logprobs_ends_the_run(
    start: Start, tmp_path: Path, models: tuple[str, str], fault: str, message: str
) -> None:
    from distillkit_loopback.tinker import faults

    service = start("hosted")
    service.faults.add(getattr(faults, fault)(), after=12, where="asample$")
    with pytest.raises(AlignmentError, match=message):
        distillkit.run(config_of(service, tmp_path, models, "troubled"))
    assert nothing_is_left(service)


@pytest.mark.parametrize("of", ["prompt", "completion"])
def test_a_server_whose_scores_and_samples_are_not_of_the_same_ids_is_refused(
    start: Start, tmp_path: Path, models: tuple[str, str], of: Literal["prompt", "completion"]
) -> None:
    from distillkit_loopback.tinker.faults import WrongIds

    service = start("hosted")
    service.faults.add(WrongIds(of=of), times=None, where="asample$")
    with pytest.raises(distillkit.InputError, match=r"nats from its own scores of the same tokens"):
        distillkit.run(config_of(service, tmp_path, models, "wrong"))
    assert service.traffic.counts.get("/api/v1/save_weights") is None
    assert nothing_is_left(service)


def test_a_checkpoint_that_the_server_has_lost_is_named(start: Start, tmp_path: Path, models: tuple[str, str]) -> None:
    service = start("hosted")
    config = config_of(service, tmp_path, models, "lost", train={"max_steps": 2})
    distillkit.run(config)
    for path in service.checkpoints:
        service.delete(path)
    more = config_of(service, tmp_path, models, "lost", train={"max_steps": 3})
    with pytest.raises(RunFailedError, match=r"Checkpoint not found.*has it been deleted, or is it another server's"):
        distillkit.run(more, resume=True)
    assert nothing_is_left(service)
