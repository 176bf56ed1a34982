"""The local trainer on sampled tokens: gradients are the reference's, and a step that cannot be made moves nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.reference_loss import token_gradient, token_loss

from builtin.local.conftest import plain_logprobs
from builtin.local.training.sampled_batches import CAP, PLAIN, batch, gradients, lora
from distillkit.arrays import token_ids
from distillkit.errors import BadStepError, PluginError
from distillkit.positions import Positions
from distillkit.training_data import Batch
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer


def test_loss_and_gradient_are_the_reference_token_by_token(causal_lm: CausalLM) -> None:
    trainer = lora(causal_lm)
    data = batch()
    expected_loss, surrogate = 0.0, torch.tensor(0.0)
    for datum in data.datums:
        logprobs = plain_logprobs(causal_lm.model, PromptAndResponse(datum.prompt_ids, datum.response_ids))
        inputs = np.stack([datum.inputs[name] for name in ("sampling_logprobs", "advantages", "weights")], axis=1)
        for logprob, (sampling, advantage, weight) in zip(logprobs, inputs.tolist(), strict=True):
            expected_loss += weight * token_loss(logprob.item(), sampling, advantage, CAP)
            surrogate = surrogate + weight * token_gradient(logprob.item(), sampling, advantage, CAP) * logprob
    trained = list(trainer.policy.trained.values())
    expected = dict(zip(trainer.policy.trained, torch.autograd.grad(surrogate, trained), strict=True))

    result = trainer.step(data)
    assert result.metrics["train/loss"] == pytest.approx(expected_loss, rel=1e-4)
    norm = torch.stack([g.square().sum() for g in expected.values()]).sum().sqrt().item()
    assert result.metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-4)
    for name, gradient in gradients(trainer).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("tokens", [1, 20])
def test_micro_batches_change_nothing_but_memory(load: Callable[..., CausalLM], tiny_model: str, tokens: int) -> None:
    whole, parts = lora(load(tiny_model)), lora(load(tiny_model), micro_batch_tokens=tokens)
    assert parts.step(batch()).metrics == pytest.approx(whole.step(batch()).metrics, rel=1e-4)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parts)[name], gradient, atol=1e-6, rtol=1e-3)


def test_recomputed_activations_give_the_same_gradient(load: Callable[..., CausalLM], tiny_model: str) -> None:
    plain, recomputing = lora(load(tiny_model)), lora(load(tiny_model))
    model = recomputing.policy.causal_lm.model
    checkpoint_activations(model)
    forwards: list[int] = []
    model.base_model.layers[0].mlp.register_forward_pre_hook(lambda *_: forwards.append(1))
    plain.step(batch())
    recomputing.step(batch())
    assert len(forwards) == 2
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(recomputing)[name], gradient)


def test_the_base_is_frozen_and_a_teacher_on_it_stays_the_same_to_the_bit(causal_lm: CausalLM) -> None:
    items = [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in batch().datums]
    base = {name: tensor.clone() for name, tensor in causal_lm.model.state_dict().items()}
    with torch.no_grad():
        teacher = causal_lm.response_logprobs(items)
    trainer = lora(causal_lm)
    for seed in range(3):
        trainer.step(batch(seed))
    after = {name.replace(".base_layer", ""): value for name, value in causal_lm.model.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in base.items())
    with torch.no_grad(), causal_lm.without_adapter():
        assert torch.equal(causal_lm.response_logprobs(items), teacher)
    with torch.no_grad():
        assert not torch.allclose(causal_lm.response_logprobs(items), teacher, atol=1e-2)


@pytest.mark.parametrize("full", [False, True])
def test_the_sampling_copy_follows_at_a_refresh_and_not_before(causal_lm: CausalLM, full: bool) -> None:
    trainer = Trainer(Policy.full(causal_lm), PLAIN) if full else lora(causal_lm)
    sampling_copy = SamplingCopy(causal_lm)
    items = [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in batch().datums]

    def of(what: CausalLM) -> torch.Tensor:
        with torch.no_grad():
            return what.response_logprobs(items)

    sampling_copy.refresh()
    before = of(sampling_copy.causal_lm)
    torch.testing.assert_close(before, of(causal_lm), atol=1e-4, rtol=1e-4)
    trainer.step(batch())
    assert torch.equal(of(sampling_copy.causal_lm), before)
    sampling_copy.refresh()
    torch.testing.assert_close(of(sampling_copy.causal_lm), of(causal_lm), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(of(sampling_copy.causal_lm), before, atol=1e-3)


def test_a_lora_and_its_sampling_copy_hold_what_is_not_adapted_once(causal_lm: CausalLM) -> None:
    lora(causal_lm)
    embedding = causal_lm.model.get_input_embeddings().weight
    assert SamplingCopy(causal_lm).causal_lm.model.get_input_embeddings().weight is embedding


def test_all_weights_are_trained_in_float32_even_where_bfloat16_computes(
    load: Callable[..., CausalLM], tiny_model: str
) -> None:
    causal_lm = load(tiny_model)
    causal_lm.dtype = torch.bfloat16
    policy = Policy.full(causal_lm)
    assert {parameter.dtype for parameter in policy.trained.values()} == {torch.float32}
    assert {parameter.dtype for parameter in SamplingCopy(causal_lm).causal_lm.model.parameters()} == {torch.bfloat16}
    before = {name: p.detach().clone() for name, p in policy.trained.items()}
    Trainer(policy, replace(PLAIN, learning_rate=1e-6)).step(batch())
    moved = [name for name, p in policy.trained.items() if not torch.equal(before[name], p)]
    assert len(moved) == len(before)


def test_a_long_prompt_is_sampled_by_the_model_that_is_trained(load: Callable[..., CausalLM], tiny_model: str) -> None:
    # Rotary frequencies in bfloat16 would be far off at such positions.
    causal_lm = load(tiny_model)
    causal_lm.dtype = torch.bfloat16
    policy, copy = Policy.full(causal_lm), SamplingCopy(causal_lm).causal_lm
    ids = np.random.default_rng(0).integers(5, 250, 460)
    item = PromptAndResponse(token_ids(ids[:400]), token_ids(ids[400:]))
    with torch.no_grad():
        difference = (copy.response_logprobs([item]) - policy.logprobs([item])).abs().mean()
    assert difference < 0.1
    buffers = dict(causal_lm.model.named_buffers())
    assert all(torch.equal(mine, buffers[name]) for name, mine in copy.model.named_buffers())


def test_dropout_depends_on_the_seed_and_the_step_alone(load: Callable[..., CausalLM], tiny_model: str) -> None:
    def losses(seed: int, noise: int) -> list[float]:
        policy = Policy.lora(load(tiny_model), rank=4, alpha=8, dropout=0.5, seed=0)
        trainer = Trainer(policy, replace(PLAIN, seed=seed))
        torch.manual_seed(noise)
        return [trainer.step(batch(step)).metrics["train/grad_norm"] for step in range(2)]

    assert losses(0, noise=1) == losses(0, noise=2)
    assert losses(0, noise=1) != losses(3, noise=1)


def test_clipping_scales_the_step_and_reports_the_norm_before(load: Callable[..., CausalLM], tiny_model: str) -> None:
    free, clipped = lora(load(tiny_model)), lora(load(tiny_model), grad_clip_norm=1e-3)
    norm = free.step(batch()).metrics["train/grad_norm"]
    assert clipped.step(batch()).metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-5)
    total = torch.stack([g.square().sum() for g in gradients(clipped).values()]).sum().sqrt()
    assert total.item() == pytest.approx(1e-3, rel=1e-3)


def moved(trainer: Trainer, data: Batch, match: str) -> bool:
    """Whether a refused step changed weights, moments or the schedule; it must be refused with these words."""
    trainer.step(batch())
    before = {name: p.detach().clone() for name, p in trainer.policy.trained.items()}
    moments = [state["exp_avg"].clone() for state in trainer.optimizer.state.values()]
    steps = trainer.scheduler.last_epoch
    with pytest.raises(BadStepError, match=match):
        trainer.step(data)
    same = all(torch.equal(before[name], p) for name, p in trainer.policy.trained.items())
    kept = all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, trainer.optimizer.state.values(), strict=True))
    return not (same and kept and trainer.scheduler.last_epoch == steps)


def test_a_gradient_that_is_not_finite_moves_nothing(causal_lm: CausalLM) -> None:
    def root(positions: Positions, options: object) -> torch.Tensor:
        logprobs: torch.Tensor = positions.logprobs
        return (logprobs - logprobs.detach()).sqrt()  # 0, with an infinite slope

    data = replace(batch(), loss_function="root", token_loss=root)
    assert not moved(lora(causal_lm), data, r"the gradient's norm is (nan|inf); lower student\.learning_rate")


def test_a_loss_that_is_not_finite_moves_nothing_and_its_token_is_named(causal_lm: CausalLM) -> None:
    trainer = lora(causal_lm)
    data = batch()
    data.datums[0].inputs["advantages"].flags.writeable = True
    data.datums[0].inputs["advantages"][1] = np.inf
    data.datums[0].inputs["weights"].flags.writeable = True
    data.datums[0].inputs["weights"][1] = 1.0
    assert not moved(trainer, data, r"row .*token 1 \(id \d+\): its loss under the student is -inf")


def test_the_learning_rate_warms_up_and_follows_its_schedule(causal_lm: CausalLM) -> None:
    trainer = lora(causal_lm, warmup_steps=2, total_steps=6, schedule="linear")  # type: ignore[arg-type]
    rates = [trainer.step(batch(step)).metrics["train/learning_rate"] for step in range(6)]
    assert rates == pytest.approx([0.0, 0.005, 0.01, 0.0075, 0.005, 0.0025])


def test_what_was_saved_goes_on_as_if_never_interrupted(
    load: Callable[..., CausalLM], tiny_model: str, tmp_path: Path
) -> None:
    options = {"warmup_steps": 2, "total_steps": 6}
    whole, first = lora(load(tiny_model), **options), lora(load(tiny_model), **options)
    for seed in range(3):
        whole.step(batch(seed))
        first.step(batch(seed))
    first.save(tmp_path)
    second = lora(load(tiny_model), **options)
    second.load(tmp_path)
    for seed in range(3, 5):
        assert second.step(batch(seed)).metrics == whole.step(batch(seed)).metrics
    for name, parameter in whole.policy.trained.items():
        assert torch.equal(second.policy.trained[name], parameter)


def test_a_loss_of_ones_own_runs_by_its_own_function(causal_lm: CausalLM) -> None:
    seen: list[str] = []

    def squared(positions: Positions, options: dict[str, float]) -> torch.Tensor:
        seen.extend(positions.inputs)
        squares: torch.Tensor = positions.logprobs.square()
        return options["factor"] * squares

    data = batch()
    trainer = lora(causal_lm)
    items = [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in data.datums]
    with torch.no_grad():
        plain = torch.cat([plain_logprobs(causal_lm.model, item) for item in items])
    weights = torch.cat([torch.tensor(datum.inputs["weights"]) for datum in data.datums])
    result = trainer.step(Batch("squared", {"factor": 2.0}, data.datums, squared))
    assert result.metrics["train/loss"] == pytest.approx((2 * plain.square() * weights).sum().item(), rel=1e-4)
    assert set(seen) == {"advantages"}
    with pytest.raises(PluginError, match="the loss 'unheard-of' has no token_loss"):
        trainer.step(Batch("unheard-of", {}, data.datums))
