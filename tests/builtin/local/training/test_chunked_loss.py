"""Losses that read distributions: gradients and losses equal a plain computation in float64, however it is cut."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.distribution_losses import LOSSES, distribution_batch, exact_copy, reference

from builtin.local.training.chunked_trainers import gradients, policy_of, trainer_of
from builtin.local.training.sampled_batches import CAP, PLAIN
from builtin.local.training.sampled_batches import batch as sampled_batch
from distillkit.arrays import frozen_array
from distillkit.errors import BadStepError, PluginError
from distillkit.positions import Positions
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.micro_batch_loss import items_of
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer

Load = Callable[..., CausalLM]


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("how", ["lora", "all", "all untied"])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradients_are_those_of_a_plain_computation(
    load: Load, tiny_model: str, untied_model: str, other_tiny_model: str, loss: str, how: str, packs: bool
) -> None:
    causal_lm, teacher = load(untied_model if how == "all untied" else tiny_model), load(other_tiny_model)
    policy = policy_of(causal_lm, how.partition(" ")[0])
    if packs:
        policy.pack()
    data = distribution_batch(loss)
    model = exact_copy(causal_lm)
    expected = reference(model, data, {"t": exact_copy(teacher)})
    expected.backward()
    exact = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    trainer = trainer_of(policy, teacher, positions=7)
    found = trainer.compute_gradient(data)
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert found.mismatch.tokens == sum(np.count_nonzero(datum.inputs["weights"]) for datum in data.datums)
    named = {name.removeprefix("base_model.model."): gradient for name, gradient in gradients(policy).items()}
    assert named.keys() == exact.keys()
    for name, gradient in named.items():
        scale = float(exact[name].abs().max())
        torch.testing.assert_close(gradient.double(), exact[name], rtol=1e-4, atol=2e-5 * scale + 1e-9)


@pytest.mark.parametrize("how", ["lora", "all"])
def test_chunks_change_nothing_but_memory(load: Load, tiny_model: str, other_tiny_model: str, how: str) -> None:
    data = distribution_batch("everything")
    found = []
    for positions in (1, 5, 128):
        policy = policy_of(load(tiny_model), how)
        share = trainer_of(policy, load(other_tiny_model), positions=positions).compute_gradient(data)
        found.append((share, gradients(policy)))
    for share, mine in found[:-1]:
        assert share.loss == pytest.approx(found[-1][0].loss, rel=1e-5)
        for name, gradient in found[-1][1].items():
            torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_bfloat16_on_float32_weights_is_near(load: Load, tiny_model: str, other_tiny_model: str) -> None:
    data = distribution_batch("reverse_kl")
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        causal_lm = load(tiny_model)
        causal_lm.dtype = dtype
        policy = Policy.full(causal_lm)
        share = trainer_of(policy, load(other_tiny_model), positions=7).compute_gradient(data)
        assert {gradient.dtype for gradient in gradients(policy).values()} == {torch.float32}
        found.append((share.loss, gradients(policy)["model.embed_tokens.weight"]))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.05)
    assert (found[1][1] - found[0][1]).norm() < 0.2 * found[0][1].norm()
    assert not torch.equal(found[1][1], found[0][1])


def test_what_has_no_weight_never_reaches_the_loss(load: Load, tiny_model: str) -> None:
    seen: list[int] = []

    def count(positions: Positions, options: object) -> Any:
        assert not positions.sampling_logprobs.isnan().any()
        seen.append(len(positions.logprobs))
        return positions.entropy

    data = distribution_batch("student_only")
    for datum in data.datums:
        array = datum.inputs["sampling_logprobs"]
        array.flags.writeable = True
        array[datum.inputs["weights"] == 0] = np.nan
    trainer = trainer_of(policy_of(load(tiny_model), "lora"), load(tiny_model))
    loss = trainer.compute_gradient(replace(data, token_loss=count)).loss
    assert np.isfinite(loss)
    assert seen == [sum(np.count_nonzero(datum.inputs["weights"]) for datum in data.datums)]
    nothing = {**data.datums[0].inputs, "weights": frozen_array(0 * data.datums[0].inputs["weights"], np.float32)}
    share = trainer.compute_gradient(replace(data, datums=(replace(data.datums[0], inputs=nothing),), token_loss=count))
    assert (share.loss, share.mismatch.tokens, len(seen)) == (0.0, 0, 1)


def test_a_position_has_what_the_loss_reads_and_nothing_else(load: Load, tiny_model: str) -> None:
    trainer = trainer_of(policy_of(load(tiny_model), "lora"), load(tiny_model))
    data = distribution_batch("student_only")
    for name, says in (("student", "distribution"), ("teacher", "full")):
        unsaid = replace(data, token_loss=lambda positions, options, name=name: getattr(positions, name).sum(-1))
        with pytest.raises(PluginError, match=rf"reads positions\.{name} without saying so: it must have `{says}`"):
            trainer.step(unsaid)
    only = replace(data, reads=frozenset({"at_ids"}))
    with pytest.raises(PluginError, match=r"positions\.logprobs .* `logprobs` in reads"):
        trainer.step(only)
    with pytest.raises(PluginError, match=r"positions\.entropy"):
        trainer.step(replace(only, reads=frozenset({"at_ids", "logprobs"})))


@pytest.mark.parametrize("reads", ["student_only", "everything"])
def test_an_id_that_the_head_has_no_row_for_is_none(
    load: Load, tiny_model: str, other_tiny_model: str, reads: str
) -> None:
    """On a GPU a look beyond the head would end the process."""
    data = distribution_batch(reads)
    beyond = [
        replace(datum, inputs={**datum.inputs, "ids": np.where(datum.inputs["ids"] < 0, other, datum.inputs["ids"])})
        for datum in data.datums
        for other in (-1, 100_000)
    ]
    seen: list[torch.Tensor] = []

    def look(positions: Positions, options: Any) -> Any:
        seen.append(positions.at(positions.inputs["ids"]).detach())
        return positions.logprobs

    trainer = trainer_of(policy_of(load(tiny_model), "lora"), load(other_tiny_model))
    for part in (beyond[::2], beyond[1::2]):
        trainer.step(replace(data, datums=tuple(part), token_loss=look))
    none, lacking = seen
    assert none.isneginf().any()
    assert torch.equal(none.isneginf(), lacking.isneginf())


def test_a_loss_that_is_not_finite_names_its_token_and_moves_nothing(load: Load, tiny_model: str) -> None:
    def spoilt(positions: Positions, options: object) -> Any:
        return positions.entropy + positions.inputs["advantages"]

    policy = policy_of(load(tiny_model), "lora")
    before = {name: parameter.detach().clone() for name, parameter in policy.trained.items()}
    data = distribution_batch("student_only")
    array = data.datums[3].inputs["advantages"]
    array.flags.writeable = True
    array[0] = np.inf
    with pytest.raises(BadStepError, match=r"sample 3: token 0 \(id \d+\): its loss under the student is inf"):
        trainer_of(policy, load(tiny_model)).step(replace(data, token_loss=spoilt))
    assert all(torch.equal(before[name], parameter) for name, parameter in policy.trained.items())


def test_the_sampled_path_gives_the_bits_of_the_formula_it_always_had(load: Load, tiny_model: str) -> None:
    for how, packs in (("lora", False), ("lora", True), ("all", False), ("all", True)):
        ours, theirs = (policy_of(load(tiny_model), how) for _ in range(2))
        for policy in (ours, theirs) if packs else ():
            policy.pack()
        data = sampled_batch()
        everywhere = [
            replace(d, inputs={**d.inputs, "weights": frozen_array(d.inputs["weights"] + 0.1, np.float32)})
            for d in data.datums
        ]
        data = replace(data, datums=tuple(everywhere))
        share = Trainer(ours, PLAIN).compute_gradient(data)
        items = items_of(data.datums)
        with theirs.training():
            total = torch.tensor(0.0)
            for group in theirs.micro_batches(items, PLAIN.micro_batch_tokens):
                logprobs = theirs.causal_lm.logprobs(theirs._response_states([items[i] for i in group]))
                sampling, advantages, weights = (
                    torch.cat([torch.tensor(data.datums[i].inputs[name]) for i in group])
                    for name in ("sampling_logprobs", "advantages", "weights")
                )
                losses = -(logprobs - sampling).clamp(max=CAP).exp() * advantages
                loss = (losses * weights).sum()
                loss.backward()
                total = total + loss.detach()
        assert share.loss == float(total)
        for name, gradient in gradients(theirs).items():
            assert torch.equal(gradients(ours)[name], gradient), name
