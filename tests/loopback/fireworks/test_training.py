"""The loopback service truly learns: by the real SDK, and to the numbers of the local backend."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fireworks.training.sdk")
import numpy as np
import torch
from builtin.fireworks.conftest import STUDENT, Connect, ask
from fireworks.training.sdk import types
from safetensors.torch import load_file

from distillkit.arrays import token_ids
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer
from distillkit_loopback.fireworks.service import LoopbackService
from loopback.fireworks.sdk_calls import (
    ADAM,
    CAP,
    OPTIONS,
    TIME,
    adapter_of,
    as_batch,
    as_wire,
    completions,
    read,
    require_close,
    train,
    weights_of,
)

if TYPE_CHECKING:
    from fireworks.training.sdk import DeploymentSampler


def test_steps_have_the_loss_and_the_weights_of_the_local_trainer(
    service: LoopbackService, connect: Connect, twin: Trainer, tmp_path: Path
) -> None:
    connected = connect()
    client = connected.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    for seed in range(3):
        data = completions(seed)
        with torch.no_grad():
            items = [PromptAndResponse(token_ids(prompt), token_ids(response)) for prompt, response, *_ in data]
            logprobs = twin.policy.causal_lm.response_logprobs(items)
        result = train(client, data)
        assert result.metrics["loss:sum"] == pytest.approx(twin.step(as_batch(data)).metrics["train/loss"], rel=1e-3)
        outputs = [each["logprobs"].tolist() for each in result.loss_fn_outputs]
        ours = [value for (prompt, *_), row in zip(data, outputs, strict=True) for value in row[len(prompt) - 1 :]]
        assert ours == pytest.approx(logprobs.tolist(), abs=2e-3)
    folder = weights_of(service, connected, client, "after-three")
    require_close(load_file(folder / "adapter_model.safetensors"), adapter_of(twin.policy, tmp_path))


@pytest.mark.parametrize("loss", ["importance_sampling", "cross_entropy"])
def test_a_forward_pass_says_what_the_backward_pass_would_and_leaves_no_gradient(
    service: LoopbackService, connect: Connect, loss: str
) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    config = {"ratio_log_cap": CAP} if loss == "importance_sampling" else None
    for step in (0, 1):  # with the adapter untouched, and trained
        data = as_wire(completions(step))
        forward = client.forward(data, loss, loss_fn_config=config).result(TIME)
        assert client.optim_step(types.AdamParams(**ADAM)).result(TIME).metrics["optim/grad_norm"] == 0
        both = client.forward_backward(data, loss, loss_fn_config=config).result(TIME)
        client.optim_step(types.AdamParams(**ADAM)).result(TIME)
        assert forward.metrics["loss:sum"] == pytest.approx(both.metrics["loss:sum"], rel=1e-5)
        assert forward.metrics["active_tokens:sum"] == both.metrics["active_tokens:sum"]
        for ours, theirs in zip(forward.loss_fn_outputs, both.loss_fn_outputs, strict=True):
            assert ours["logprobs"].tolist() == pytest.approx(theirs["logprobs"].tolist(), abs=1e-5)
    assert [one.path.rpartition("/")[2] for one in service.requests].count("forward") == 2


def test_several_targets_at_a_position_are_summed_by_their_weights(connect: Connect, tiny_model: str) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    ids, made_up = [5, 60, 70, 80, 90], np.random.default_rng(0)
    targets = made_up.integers(0, 250, (4, 3)).astype(np.int64)
    weights = made_up.random((4, 3)).astype(np.float32) * [[0], [1], [1], [0]]
    inputs = {"target_tokens": targets, "weights": weights.astype(np.float32)}
    datum = types.Datum(model_input=types.ModelInput.from_ints(ids[:-1]), loss_fn_inputs=inputs)
    result = client.forward_backward([datum], "cross_entropy").result(TIME)
    with torch.no_grad():
        logprobs = torch.log_softmax(read(tiny_model).model(torch.tensor([ids[:-1]])).logits[0].double(), dim=1)
    picked = logprobs.gather(1, torch.tensor(targets)).numpy()
    assert result.metrics["loss:sum"] == pytest.approx(-(weights * picked).sum(), rel=1e-5)
    assert result.metrics["active_tokens:sum"] == 2  # positions with a weight
    np.testing.assert_allclose(np.reshape(result.loss_fn_outputs[0]["logprobs"].tolist(), (4, 3)), picked, atol=1e-4)
    with pytest.raises(Exception, match="importance_sampling takes one target a position"):
        client.forward([datum], "importance_sampling").result(TIME)


def test_a_forward_pass_does_not_count_for_the_normalization(connect: Connect) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    data = as_wire(completions())
    norms = []
    for passes in (0, 3):
        for _ in range(passes):
            client.forward(data, "importance_sampling").result(TIME)
        client.forward_backward(data, "importance_sampling")
        still = types.AdamParams(**{**ADAM, "learning_rate": 0.0, "weight_decay": 0.0})
        step = client.optim_step(still, grad_accumulation_normalization="num_loss_tokens")
        norms.append(step.result(TIME).metrics["optim/grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_a_forward_pass_with_bad_data_is_a_failed_future(connect: Connect) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    (good, *_) = as_wire(completions())
    with pytest.raises(Exception, match="does not know the loss"):
        client.forward([good], "ppo").result(TIME)
    assert client.forward([good], "cross_entropy").result(TIME).metrics["loss:sum"] > 0


def test_all_weights_are_trained_where_the_rank_is_zero(
    service: LoopbackService, connect: Connect, tiny_model: str
) -> None:
    connected = connect(max_lora_rank=None, lora_rank=0)
    client = connected.create_training_client(STUDENT, lora_rank=0)
    twin = Trainer(Policy.full(read(tiny_model)), OPTIONS)
    train(client, completions())
    twin.step(as_batch(completions()))
    folder = weights_of(service, connected, client, "full")
    require_close(dict(read(str(folder)).model.state_dict()), twin.policy.causal_lm.model.state_dict())


@pytest.mark.parametrize(("normalization", "scale"), [(None, 1.0), ("num_sequences", 0.25), ("num_loss_tokens", None)])
def test_gradients_add_up_over_requests_until_the_step(
    connect: Connect, twin: Trainer, normalization: str | None, scale: float | None
) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    data = completions()
    for part in (data[:1], data[1:]):
        client.forward_backward(as_wire(part), "importance_sampling", loss_fn_config={"ratio_log_cap": CAP})
    step = client.optim_step(types.AdamParams(**ADAM), grad_accumulation_normalization=normalization)
    active = sum(np.count_nonzero(advantages) for *_, advantages in data)
    expected = twin.step(as_batch(data, scale or 1 / active)).metrics["train/grad_norm"]
    assert step.result(TIME).metrics["optim/grad_norm"] == pytest.approx(expected, rel=1e-3)
    empty = client.optim_step(types.AdamParams(**ADAM)).result(TIME)
    assert empty.metrics["optim/grad_norm"] == 0


def test_a_batch_in_several_requests_comes_back_in_order(service: LoopbackService, connect: Connect) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4)
    data = [([5 + i % 200], [60, 61], np.full(2, -5.0), np.full(2, i / 1000)) for i in range(1030)]
    result = client.forward_backward(as_wire(data), "importance_sampling", loss_fn_config={"ratio_log_cap": CAP})
    outputs = result.result(TIME).loss_fn_outputs
    sent = [request for request in service.requests if request.path.endswith("/forward_backward")]
    assert len(sent) == 2
    assert len(outputs) == 1030
    for i in (0, 7, 199):
        assert outputs[i]["logprobs"].tolist() == pytest.approx(outputs[i + 800]["logprobs"].tolist(), abs=1e-4)
    assert outputs[0]["logprobs"].tolist() != pytest.approx(outputs[1]["logprobs"].tolist(), abs=1e-2)
    ratios = [np.exp(np.minimum(np.array(each["logprobs"].tolist()) + 5.0, CAP)).sum() for each in outputs]
    expected = -sum(ratio * i / 1000 for i, ratio in enumerate(ratios))
    assert result.result(TIME).metrics["loss:sum"] == pytest.approx(expected, rel=1e-3)


async def test_a_hot_load_changes_what_is_sampled_and_nothing_else_does(
    service: LoopbackService, connect: Connect, twin: Trainer, sampler_of: "Callable[..., DeploymentSampler]"
) -> None:
    connected = connect()
    client = connected.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    model = f"accounts/loopback/deployments/{connected.deployment_id}"

    async def logprobs() -> list[float]:
        echo = await ask(sampler_of(model), [1, 70, 80, 90, 75], max_tokens=1, temperature=0.0, echo=True)
        return list(echo.inference_logprobs)[:-1]

    base = await logprobs()
    train(client, completions())
    saved = client.save_weights_for_sampler_ext("step-1")
    assert await logprobs() == base
    connected.hotload_sampler_snapshot(saved.path)
    after = await logprobs()
    assert service.deployments["student"].snapshot == saved.path
    twin.step(as_batch(completions()))
    sampling_copy = SamplingCopy(twin.policy.causal_lm)
    sampling_copy.refresh()
    item = PromptAndResponse(token_ids([1]), token_ids([70, 80, 90, 75]))
    with torch.no_grad():
        expected = sampling_copy.causal_lm.response_logprobs([item])
    assert after == pytest.approx(expected.tolist(), abs=2e-3)
    assert after != pytest.approx(base, abs=1e-2)


def test_data_that_cannot_be_trained_on_are_a_failed_future(connect: Connect) -> None:
    client = connect().create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    (good, *_) = as_wire(completions())
    shifted = types.Datum(
        model_input=good.model_input,
        loss_fn_inputs={
            **{name: np.asarray(data.data, np.float32) for name, data in good.loss_fn_inputs.items()},
            "target_tokens": np.full(len(good.model_input.to_ints()), 7, np.int64),
        },
    )
    with pytest.raises(Exception, match="not the input shifted by one"):
        client.forward_backward([shifted], "importance_sampling").result(TIME)
    with pytest.raises(Exception, match="does not know the loss"):
        client.forward_backward([good], "ppo").result(TIME)
    assert client.forward_backward([good], "importance_sampling").result(TIME).metrics["active_tokens:sum"] > 0
