"""Deployments, trainers and operations of the loopback service fail as ordered, and the real SDK sees it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fireworks.training.sdk")
import httpx
from builtin.fireworks.conftest import STUDENT, Connect
from fireworks.training.sdk import DeploymentSampler, RequestFailedError, types
from safetensors.torch import load_file

from distillkit_loopback.fireworks import faults
from distillkit_loopback.fireworks.service import LoopbackService
from distillkit_loopback.training.futures import Futures, InOrder, Worker
from distillkit_loopback.transport.routes import Refused
from loopback.fireworks.sdk_calls import (
    ADAM,
    TIME,
    adapter_of,
    as_batch,
    as_wire,
    completions,
    managers,
    require_close,
    teacher_config,
    train,
    weights_of,
)

if TYPE_CHECKING:
    from distillkit_builtin.local.training.trainer import Trainer

    SamplerOf = Callable[..., DeploymentSampler]


def test_a_deployment_fails_or_never_gets_ready(service: LoopbackService) -> None:
    _, deployments = managers(service)
    service.faults.add(faults.Fails("no capacity"), where="POST .*/deployments$")
    service.faults.add(faults.NeverDone(), where="POST .*/deployments$")
    deployments.create_or_get(teacher_config("bad"))
    with pytest.raises(RuntimeError, match="FAILED"):
        deployments.wait_for_ready("bad", timeout_s=5)
    deployments.create_or_get(teacher_config("slow"))
    with pytest.raises(TimeoutError):
        deployments.wait_for_ready("slow", timeout_s=0.3, poll_interval_s=0.1)
    assert list(service.deployments) == ["slow"]


def test_a_trainer_fails_or_never_gets_ready(service: LoopbackService, connect: Connect) -> None:
    service.faults.add(faults.Fails("no machine"), where="POST .*/rlorTrainerJobs$")
    with pytest.raises(RuntimeError, match="no machine"):
        connect().create_training_client(STUDENT, lora_rank=4)
    assert not service.jobs
    service.faults.add(faults.NeverDone(), where="POST .*/rlorTrainerJobs$")
    body = {"trainingConfig": {"baseModel": STUDENT}}
    made = httpx.post(
        f"{service.base_url}/v1/accounts/loopback/rlorTrainerJobs?rlorTrainerJobId=slow",
        json=body,
        headers={"x-api-key": "k"},
    )
    assert made.json()["state"] == "JOB_STATE_CREATING"
    jobs, _ = managers(service)
    with pytest.raises(TimeoutError):
        jobs.wait_for_ready("slow", timeout_s=0.3, poll_interval_s=0.1)
    assert list(service.jobs) == ["slow"]


def test_a_hot_load_fails(service: LoopbackService, connect: Connect) -> None:
    connected = connect()
    client = connected.create_training_client(STUDENT, lora_rank=4)
    saved = client.save_weights_for_sampler_ext("step-0")
    service.faults.add(faults.Fails(), where="POST .*/hot_load$")
    with pytest.raises(RuntimeError, match="Hotload failed"):
        connected.hotload_sampler_snapshot(saved.path)
    with pytest.raises(RuntimeError, match="Hotload failed"):
        connected.hotload_sampler_snapshot("never-saved")
    assert service.deployments["student"].snapshot is None
    connected.hotload_sampler_snapshot(saved.path)
    assert service.deployments["student"].snapshot == saved.path


def test_a_save_or_a_promotion_fails_and_the_client_stays_usable(service: LoopbackService, connect: Connect) -> None:
    connected = connect()
    client = connected.create_training_client(STUDENT, lora_rank=4)
    service.faults.add(faults.Fails("the disk is full"), where="POST .*/save_weights$")
    with pytest.raises(RequestFailedError, match="the disk is full"):
        client.save_state("step-1").result(TIME)
    client.save_state("step-1").result(TIME)
    with pytest.raises(RequestFailedError, match="exists"):
        client.save_state("step-1").result(TIME)
    saved = client.save_weights_for_sampler_ext("step-1")
    row = next(row for row in connected.list_checkpoints("trainer") if row["name"].endswith(saved.path))
    service.faults.add(faults.Fails("no space for models"), where="POST .*:promote$")
    with pytest.raises(RuntimeError, match="no space for models"):
        connected.promote_checkpoint(name=row["name"], output_model_id="m", base_model=STUDENT)
    with pytest.raises(Refused, match="not found"):
        service.path("accounts/loopback/models/m")


def test_an_operation_whose_response_is_lost_is_applied_once(
    service: LoopbackService, connect: Connect, twin: "Trainer", tmp_path: Path
) -> None:
    connected = connect()
    client = connected.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    service.faults.add(faults.Hangup(applied=True), where="POST .*/forward_backward$")
    service.faults.add(faults.Hangup(applied=True), where="POST .*/optim_step$")
    service.faults.add(faults.Status(503), where="POST .*/optim_step$")
    train(client, completions())
    twin.step(as_batch(completions()))
    sent = [request.path.rpartition("/")[2] for request in service.requests]
    assert sent.count("forward_backward") == 2
    assert sent.count("optim_step") == 3
    folder = weights_of(service, connected, client, "once")
    require_close(load_file(folder / "adapter_model.safetensors"), adapter_of(twin.policy, tmp_path))


def test_a_result_that_never_comes_is_a_time_out(service: LoopbackService, connect: Connect) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4)
    service.faults.add(faults.NeverDone(), where="POST .*/optim_step$")
    step = client.optim_step(types.AdamParams(**ADAM))
    with pytest.raises(TimeoutError):
        step.result(0.3)
    assert client.optim_step(types.AdamParams(**ADAM)).result(TIME).metrics


def test_a_step_that_is_refused_for_good_holds_nothing_up(service: LoopbackService, connect: Connect) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4)
    service.faults.add(faults.Status(400, message="bad step"), where="POST .*/optim_step$")
    with pytest.raises(Exception, match="bad step"):
        client.optim_step(types.AdamParams(**ADAM)).result(TIME)
    assert client.optim_step(types.AdamParams(**ADAM)).result(TIME).metrics


def test_a_trainer_that_dies_is_resumed_with_its_checkpoints_and_without_its_models(
    service: LoopbackService, connect: Connect
) -> None:
    first = connect()
    client = first.create_training_client(STUDENT, lora_rank=4)
    client.save_state("step-1").result(TIME)
    service.faults.add(faults.Dies("out of memory"), where="POST .*/retrieve_future$")
    lost = client.forward_backward(as_wire(completions()), "importance_sampling")
    with pytest.raises(TimeoutError):
        lost.result(0.5)
    jobs, _ = managers(service)
    assert jobs.get("trainer")["state"] == "JOB_STATE_FAILED"
    assert not service.jobs
    asked = len(service.requests)
    time.sleep(0.5)
    assert len(service.requests) - asked < 10
    again = connect().create_training_client(STUDENT, lora_rank=4)
    assert list(service.jobs) == ["trainer"]
    assert again.model_id != client.model_id
    again.load_state_with_optimizer("step-1").result(TIME)


def test_operations_run_once_and_in_order_whatever_the_order_of_arrival() -> None:
    futures = Futures()
    worker = Worker(futures)
    ordered = InOrder("job", futures, worker)
    ran: list[int] = []

    def work(number: int) -> Callable[[], int]:
        return lambda: ran.append(number) or number

    third = ordered.add(3, work(3), None)
    assert ordered.add(3, work(33), None) == third
    assert futures.wait(third, 0.05) is None
    ordered.add(1, work(1), None)
    assert futures.wait(third, 0.05) is None
    ordered.skip(2)
    assert futures.wait(third, 5) == 3
    assert ran == [1, 3]
    futures.drop("job")
    with pytest.raises(Refused, match="not found"):
        futures.wait(third, 5)
    worker.close()
