"""The loopback service behaves: resources, completions and scores, asked for by the real SDK."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fireworks.training.sdk")

import httpx
import numpy as np
import torch
from builtin.fireworks.conftest import SERVED, STUDENT, Connect, ask
from fireworks.training.sdk import DeploymentManager, DeploymentSampler
from helpers.tiny_models import EOS
from transformers import AutoModelForCausalLM

from distillkit_loopback.fireworks.service import LoopbackService
from distillkit_loopback.transport.faults import Delay
from loopback.fireworks.sdk_calls import TIME, managers, teacher_config

if TYPE_CHECKING:
    SamplerOf = Callable[..., DeploymentSampler]

PROMPT = [1, 70, 80, 90, 75]


def test_provisioning_makes_a_trainer_and_a_deployment_and_closing_leaves_nothing_running(
    service: LoopbackService, connect: Connect
) -> None:
    client = connect()
    training = client.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    assert training.model_id.startswith("trainer:")
    assert client.max_context_length == 512
    assert service.jobs["trainer"].state == "JOB_STATE_RUNNING"
    assert service.jobs["trainer"].lora_rank == 8
    assert service.deployments["student"].base_model == STUDENT
    client.create_inference_deployment_sampler(teacher_config(), timeout_s=10, cleanup_on_close="scale_to_zero")
    assert set(service.deployments) == {"student", "teacher"}
    client.close()
    assert not service.jobs
    assert not service.deployments


def test_what_was_made_before_is_reused_and_not_cleaned_up(service: LoopbackService, connect: Connect) -> None:
    connect(cleanup_trainer_on_close=False, cleanup_deployment_on_close=None).create_training_client(STUDENT, 4)
    second = connect()
    second.create_training_client(STUDENT, 4)
    second.close()
    assert list(service.jobs) == ["trainer"]
    assert list(service.deployments) == ["student"]


def test_a_deployment_goes_over_to_another_trainer_and_takes_only_its_weights(
    service: LoopbackService, connect: Connect
) -> None:
    first = connect(cleanup_trainer_on_close=False, cleanup_deployment_on_close=None)
    old = first.create_training_client(STUDENT, 4).save_weights_for_sampler_ext("old")
    second = connect(trainer_job_id="second")
    client = second.create_training_client(STUDENT, 4)
    assert second.requires_initial_sampler_sync()
    with pytest.raises(RuntimeError, match="Hotload failed"):
        second.hotload_sampler_snapshot(old.path)
    second.hotload_sampler_snapshot(client.save_weights_for_sampler_ext("new").path)
    assert service.deployments["student"].snapshot != old.path
    client.unload_model().result(TIME)
    other = second.create_training_client(STUDENT, 2)
    assert other.model_id != client.model_id


def test_a_deployment_at_zero_replicas_serves_nothing_until_it_is_scaled_up(service: LoopbackService) -> None:
    _, deployments = managers(service)
    deployments.create_or_get(teacher_config())
    deployments.wait_for_ready("teacher", timeout_s=5)
    deployments.scale_to_zero("teacher")
    assert not service.deployments
    deployments.update("teacher", {"minReplicaCount": 1, "maxReplicaCount": 2}, ["max_replica_count"])
    assert service.deployments["teacher"].max_replicas == 2
    deployments.delete("teacher")
    assert not service.deployments


def test_a_model_that_the_service_does_not_have_cannot_be_trained_or_deployed(
    service: LoopbackService, connect: Connect
) -> None:
    with pytest.raises(Exception, match="404"):
        connect(base_model="accounts/fireworks/models/unheard-of").create_training_client(
            "accounts/fireworks/models/unheard-of", lora_rank=4
        )
    _, deployments = managers(service)
    with pytest.raises(Exception, match="400"):
        deployments.create_or_get(teacher_config("t" * 64))
    assert not service.deployments


def logprobs_of(source: str, ids: list[int]) -> torch.Tensor:
    """[len(ids) - 1, vocabulary] by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0], dim=1)


async def test_completions_are_sampled_from_the_models_own_distribution(
    other_tiny_model: str, sampler_of: "SamplerOf"
) -> None:
    completion = await ask(sampler_of(), PROMPT, max_tokens=12, temperature=1.0, seed=7)
    ids = completion.full_tokens[len(PROMPT) :]
    assert len(ids) == 12 or ids[-1] == EOS
    assert completion.finish_reason == ("stop" if ids[-1] == EOS else "length")
    logprobs = logprobs_of(other_tiny_model, completion.full_tokens)[len(PROMPT) - 1 :]
    uniforms = np.random.Generator(np.random.Philox(key=7)).random(12, dtype=np.float32)
    for row, index, uniform in zip(logprobs.double(), ids, uniforms, strict=False):  # by inverse transform
        below = float(row[:index].exp().sum())
        assert below - 1e-6 <= uniform <= below + float(row[index].exp()) + 1e-6
    expected = logprobs.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    assert completion.inference_logprobs == pytest.approx(expected, abs=1e-5)
    assert completion.sampling_logprobs == completion.inference_logprobs


async def test_a_seed_repeats_a_completion_and_without_one_they_differ(sampler_of: "SamplerOf") -> None:
    sampled = [await ask(sampler_of(), PROMPT, max_tokens=12, seed=seed) for seed in (1, 1, 2)]
    texts = [tuple(each.full_tokens) for each in sampled]
    assert texts[0] == texts[1] != texts[2]
    free = [await ask(sampler_of(), PROMPT, max_tokens=12) for _ in range(2)]
    assert free[0].full_tokens != free[1].full_tokens


async def test_logprobs_are_at_temperature_one_whatever_was_sampled_at(sampler_of: "SamplerOf") -> None:
    warm = await ask(sampler_of(), PROMPT, max_tokens=8, temperature=0.3, seed=1)
    assert all(value is None for value in warm.sampling_logprobs)
    echo = await ask(sampler_of(), warm.full_tokens, max_tokens=1, temperature=0.0, echo=True)
    assert echo.inference_logprobs[len(PROMPT) - 1 : -1] == pytest.approx(warm.inference_logprobs, abs=1e-4)


@pytest.mark.parametrize("deployed", [True, False])
async def test_an_echo_has_the_models_own_logprobs(
    service: LoopbackService, sampler_of: "SamplerOf", other_tiny_model: str, deployed: bool
) -> None:
    model = SERVED
    if deployed:
        _, deployments = managers(service)
        deployments.create_or_get(teacher_config())
        model = deployments.wait_for_ready("teacher", timeout_s=5).inference_model
    response = [60, 61, 2, 99]
    full = [*PROMPT, *response]
    score = await ask(sampler_of(model), full, max_tokens=1, temperature=0.0, echo=True)
    assert score.logprobs_echoed
    assert score.full_tokens[: score.prompt_len] == full
    ours = score.inference_logprobs[len(PROMPT) - 1 : len(full) - 1]
    rows = logprobs_of(other_tiny_model, full)[len(PROMPT) - 1 :]
    np.testing.assert_allclose(ours, rows.gather(1, torch.tensor(response)[:, None])[:, 0].numpy(), atol=1e-5)


STRICT = {"context_length_exceeded_behavior": "error"}
"""By default the real service cuts a completion shorter than was asked for."""


async def test_what_cannot_be_completed_is_refused(sampler_of: "SamplerOf") -> None:
    for prompt, options in (([], {}), ([1, 10_000], {}), ([1], {"max_tokens": 600, **STRICT})):
        with pytest.raises(Exception, match="400"):
            await ask(sampler_of(), prompt, **{"max_tokens": 4, **options})


async def test_requests_are_recorded_without_the_key(service: LoopbackService, sampler_of: "SamplerOf") -> None:
    await ask(sampler_of(), PROMPT, max_tokens=2, seed=5)
    (request,) = service.requests
    assert (request.method, request.path) == ("POST", "/inference/v1/completions")
    assert isinstance(request.body, dict)
    assert request.body["seed"] == 5
    assert "test-key" not in str(request)
    with pytest.raises(FrozenInstanceError):
        request.path = "/"  # type: ignore[misc]


def test_a_wrong_key_is_refused(tiny_model: str) -> None:
    with LoopbackService({STUDENT: tiny_model}, api_key="right") as service:
        for key in ("right", "wrong"):
            manager = DeploymentManager(api_key=key, base_url=service.base_url)
            if key == "right":
                manager.create_or_get(teacher_config(base_model=STUDENT))
                continue
            with pytest.raises(Exception, match="401"):
                manager.create_or_get(teacher_config(base_model=STUDENT))


def test_torch_computes_in_one_thread_until_the_service_closes(tiny_model: str) -> None:
    torch.set_num_threads(2)
    try:
        with LoopbackService({STUDENT: tiny_model}) as service:
            assert torch.get_num_threads() == 1
        service.close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_closing_ends_every_thread_at_once_whatever_it_waits_for(tiny_model: str) -> None:
    before = set(threading.enumerate())
    service = LoopbackService({STUDENT: tiny_model})
    service.faults.add(Delay(60), where="GET .*/accounts$")

    def wait() -> None:
        with suppress(httpx.HTTPError):
            httpx.get(f"{service.base_url}/v1/accounts", headers={"x-api-key": "k"})

    asking = threading.Thread(target=wait)
    asking.start()
    until = time.monotonic() + 30
    while not service.requests and time.monotonic() < until:
        time.sleep(0.01)
    began = time.monotonic()
    service.close()
    service.close()
    asking.join(30)
    assert time.monotonic() - began < 20  # it waits for a minute
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("loopback")]
    assert not left
