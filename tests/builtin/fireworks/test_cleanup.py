"""Nothing of what a run made at Fireworks is left, however the run ends."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import distillkit
from builtin.fireworks.runs import made, make_config, nothing_is_left
from distillkit.errors import RunFailedError

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


@pytest.mark.parametrize(
    ("path", "after"),
    [("/deployments$", 0), ("/deployments$", 1), ("/create_model$", 0)],
    ids=["one deployment", "the other", "model"],
)
@pytest.mark.usefixtures("fast_polls")
def test_a_provisioning_that_fails_leaves_nothing_running(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, path: str, after: int
) -> None:
    from distillkit_loopback.fireworks.faults import Fails

    service.faults.add(Fails("no capacity"), after=after, where=f"POST .*{path}")
    with pytest.raises(RunFailedError, match="provisioning"):
        distillkit.run(make_config(service, tmp_path, tiny_model))
    assert nothing_is_left(service)
    assert not (tmp_path / "runs/fw/pending_cleanup").exists()


@pytest.mark.usefixtures("fast_polls")
def test_a_trainer_that_is_refused_leaves_nothing_running(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    from distillkit_loopback.fireworks.faults import Status

    service.faults.add(Status(400, message="no quota"), where="POST .*/rlorTrainerJobs$")
    with pytest.raises(RunFailedError, match="no quota"):
        distillkit.run(make_config(service, tmp_path, tiny_model))
    assert nothing_is_left(service)


@pytest.mark.parametrize("path", ["/deployments$", "/rlorTrainerJobs$"])
@pytest.mark.usefixtures("fast_polls")
async def test_a_run_that_is_interrupted_while_it_waits_leaves_nothing_running(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, path: str
) -> None:
    from distillkit_loopback.fireworks.faults import NeverDone

    service.faults.add(NeverDone(), times=None, where=f"POST .*{path}")
    run = asyncio.create_task(distillkit.arun(make_config(service, tmp_path, tiny_model)))
    while not (service.jobs and len(service.deployments) == 2) and not run.done():
        await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert nothing_is_left(service)


async def test_a_run_that_is_interrupted_while_it_trains_leaves_nothing_running(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    config = make_config(service, tmp_path, tiny_model, data={"epochs": 50})
    run = asyncio.create_task(distillkit.arun(config))
    while not made(service, "optim_step") and not run.done():
        await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert nothing_is_left(service)


def test_a_dropped_connection_does_not_end_the_clean_up(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    from distillkit_loopback.fireworks.faults import Hangup

    service.faults.add(Hangup(), times=2, where="PATCH .*/deployments/")
    service.faults.add(Hangup(), where="DELETE .*/rlorTrainerJobs/")
    distillkit.run(make_config(service, tmp_path, tiny_model))
    assert nothing_is_left(service)


def test_a_clean_up_that_fails_fails_the_run_and_names_what_is_left(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    from distillkit_loopback.fireworks.faults import Status

    service.faults.add(Status(400, message="not now"), times=None, where="DELETE .*/rlorTrainerJobs/")
    with pytest.raises(RunFailedError, match=r"trainer job 'dk-fw-trainer-\w+' may still run"):
        distillkit.run(make_config(service, tmp_path, tiny_model))
    (job,) = service.jobs
    assert job in (tmp_path / "runs/fw/run.log").read_text()
    (record,) = (tmp_path / "runs/fw/pending_cleanup").glob("*.json")
    assert json.loads(record.read_text())["trainers"] == {job: "delete"}
