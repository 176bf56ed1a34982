"""What the service trains is what the SDK asked for, as one server or the other computes it."""

import numpy as np
import pytest
import torch

pytest.importorskip("tinker")
import httpx
import tinker
from tinker import types

from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.tinker.lora_settings import ALPHA
from distillkit_loopback.tinker.service import TinkerService
from distillkit_loopback.training.learner import lora
from loopback.tinker.conftest import KEY, MODEL, Connect, Start
from loopback.tinker.sdk_calls import (
    TIME,
    Data,
    as_wire,
    completions,
    logprobs_of,
    prompt_of,
    sample,
    scores,
    train,
    trainer,
)


def gradients(source: str, data: Data, seed: int, *, sums: bool) -> tuple[list[torch.Tensor], float]:
    """Of the importance-sampling loss by a reference of its own, and the loss; not `sums`: as SkyRL divides it."""
    base = CausalLM.load(source)
    adapted = lora(base, 4, ALPHA, seed)
    total = torch.zeros(())
    for prompt, response, sampling, advantages in data:
        full = torch.tensor([*prompt, *response])
        logprobs = torch.log_softmax(adapted(input_ids=full[None, :-1]).logits[0].float(), 1)
        taken = logprobs.gather(1, full[1:, None])[len(prompt) - 1 :, 0]
        loss = -(torch.exp(taken - torch.tensor(sampling)) * torch.tensor(advantages)).sum()
        total = total + (loss if sums else loss / (len(full) - 1) / len(data))
    total.backward()  # type: ignore[no-untyped-call]
    return [each.grad for each in adapted.parameters() if each.grad is not None], float(total.detach())


def test_the_loss_is_the_sum_over_tokens_and_the_gradient_can_be_clipped(
    start: Start, connect: Connect, tiny_model: str
) -> None:
    data = completions()
    _, loss = gradients(tiny_model, data, 7, sums=True)
    client = connect(start("hosted"))
    output, metrics = train(trainer(client), data)
    assert (output.metrics["loss:sum"], metrics) == (pytest.approx(loss, rel=1e-4), {})
    # AdamW does not see the scale of a gradient, but for its eps.
    clipped, free = trainer(client), trainer(client)
    train(clipped, data, eps=1.0, grad_clip_norm=1e-6)
    train(free, data, eps=1.0)
    assert not np.allclose(logprobs_of(clipped, data)[0], logprobs_of(free, data)[0], atol=1e-5)


def test_skyrl_divides_by_tokens_and_sequences_and_does_not_clip(
    start: Start, connect: Connect, tiny_model: str
) -> None:
    data = completions()
    expected, _ = gradients(tiny_model, data, 7, sums=False)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in expected]))
    output, metrics = train(trainer(connect(start("skyrl"))), data, grad_clip_norm=1e-6)
    assert output.metrics == {}
    assert metrics["skyrl.ai/grad_norm"] == pytest.approx(float(norm), rel=1e-3)
    for (prompt, response, sampling, advantages), found in zip(data, output.loss_fn_outputs, strict=True):
        logprobs = np.array(found["logprobs"].tolist())[len(prompt) - 1 :]
        losses = np.array(found["elementwise_loss"].tolist())[len(prompt) - 1 :]
        assert len(found["logprobs"].tolist()) == len(prompt) + len(response) - 1
        np.testing.assert_allclose(losses, -np.exp(logprobs - sampling) * advantages, rtol=1e-4)


def test_a_step_moves_the_weights_against_the_gradient_and_once(service: TinkerService, connect: Connect) -> None:
    client = trainer(connect(service))
    prompt, response, sampling, _ = completions()[0]
    before = logprobs_of(client, completions())[0]
    train(client, [(prompt, response, sampling, np.ones(len(response)))])
    after = logprobs_of(client, completions())[0]
    assert sum(after[len(prompt) - 1 :]) > sum(before[len(prompt) - 1 :])
    assert [model.steps for model in service.models.values()] == [1]
    assert service.unfinished == 0


def test_the_same_seed_is_the_same_adapter_and_no_seed_is_another(service: TinkerService, connect: Connect) -> None:
    client, data = connect(service), completions()
    made = [trainer(client, seed=seed) for seed in (7, 7, None)]
    for each in made:
        train(each, data)
    first, second, other = (logprobs_of(each, data) for each in made)
    assert first == second
    assert other != first


def test_a_snapshot_is_the_policy_of_its_step_whatever_is_trained_after(
    service: TinkerService, connect: Connect
) -> None:
    client, data = trainer(connect(service)), completions()
    train(client, data)
    snapshot = client.save_weights_and_get_sampling_client().result(TIME)
    ids = [*data[0][0], *data[0][1]]
    trained = logprobs_of(client, data)[0]
    train(client, data)
    np.testing.assert_allclose(np.array(scores(snapshot, ids)[-len(trained) :], float), trained, atol=1e-5)
    later = client.save_weights_and_get_sampling_client().result(TIME)
    assert scores(later, ids)[-1] != scores(snapshot, ids)[-1]
    assert len(service.snapshots) == 2
    assert not service.checkpoints


def test_cross_entropy_takes_several_targets_a_position(start: Start, connect: Connect) -> None:
    client = trainer(connect(start("hosted")))
    targets = torch.tensor([[70, 71], [80, 0], [90, 0]])
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]])
    datum = types.Datum(
        model_input=prompt_of([1, 70, 80]), loss_fn_inputs={"target_tokens": targets, "weights": weights}
    )
    output = client.forward([datum], "cross_entropy").result(TIME)
    logprobs = np.array(output.loss_fn_outputs[0]["logprobs"].tolist())
    assert output.loss_fn_outputs[0]["logprobs"].shape == [3, 2]
    assert output.metrics["loss:sum"] == pytest.approx(-float((logprobs * weights.numpy()).sum()), rel=1e-5)


def test_unknown_options_and_losses_are_refused_and_the_client_goes_on(
    service: TinkerService, connect: Connect
) -> None:
    client, data = trainer(connect(service)), completions()
    refused = (tinker.BadRequestError, tinker.UnprocessableEntityError)
    with pytest.raises(refused, match="does not accept loss_fn_config keys"):
        client.forward_backward(as_wire(data), "importance_sampling", {"ratio_log_cap": 2.0}).result(TIME)
    with pytest.raises(refused, match="does not know the loss 'ppo'"):
        client.forward_backward(as_wire(data), "ppo").result(TIME)
    train(client, data)
    assert [model.steps for model in service.models.values()] == [1]


def test_the_names_of_models(start: Start, connect: Connect) -> None:
    hosted, skyrl = connect(start("hosted")), connect(start("skyrl"))
    with pytest.raises(tinker.BadRequestError, match="not supported"):
        hosted.create_lora_training_client("other/model", 4).result(TIME)
    with pytest.raises(tinker.BadRequestError, match="power of 2"):
        hosted.create_lora_training_client(MODEL, 6).result(TIME)
    assert skyrl.create_lora_training_client("other/model", 6).result(TIME).get_info().model_data.model_name
    sampler = skyrl.create_sampling_client(base_model="other/model").result(TIME)
    with pytest.raises(ValueError, match="Engine is configured for 'org/tiny'"):
        sample(sampler)
    capabilities = tinker.RestClient(base_url=hosted._base_url, api_key=KEY).get_server_capabilities().result(TIME)
    (known,) = capabilities.supported_models
    assert (known.model_name, known.max_context_length) == (MODEL, 512)


def test_skyrl_says_what_it_reads(start: Start) -> None:
    said = httpx.get(f"{start('skyrl').base_url}/openapi.json").json()
    assert "grad_clip_norm" not in said["components"]["schemas"]["AdamParams"]["properties"]
    assert "/api/v1/unload_model" in said["paths"]
    assert httpx.get(f"{start('hosted').base_url}/openapi.json", headers={"x-api-key": KEY}).status_code == 404


def test_sessions_end_by_their_finish_or_by_silence(start: Start, connect: Connect) -> None:
    service = start("hosted")
    client = connect(service)
    trainer(client).save_weights_and_get_sampling_client().result(TIME)
    assert (len(service.sessions), len(service.models), len(service.snapshots)) == (1, 1, 1)
    client.close("errored").result(TIME)
    assert (service.sessions, service.models, service.snapshots) == ({}, {}, {})
    assert [*service.finished.values()] == ["errored"]
    skyrl = start("skyrl", session_timeout=0.0)
    body = {"tags": [], "sdk_version": "x"}
    assert httpx.post(f"{skyrl.base_url}/api/v1/create_session", json=body).status_code == 200
    assert (skyrl.sessions, [*skyrl.finished.values()]) == ({}, ["silent"])


def test_only_who_has_the_key_is_let_in(start: Start, connect: Connect) -> None:
    service = start("hosted", api_key="tml-other")
    with pytest.raises(tinker.AuthenticationError):
        connect(service).create_lora_training_client(MODEL).result(TIME)
    address = "/api/v1/get_server_capabilities"
    for url, headers, status in (
        (service.base_url, {"x-api-key": "tml-other"}, 200),
        (start("hosted").base_url, {}, 401),
        (start("hosted").base_url, {"x-api-key": KEY}, 200),
        (start("skyrl").base_url, {}, 200),
    ):
        assert httpx.get(url + address, headers=headers).status_code == status
    assert "other" not in repr(service.traffic.requests())
