"""A head that is trained: its loss is computed with it, a chunk of positions at a time, and no head twice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_models
from torch import Tensor

from builtin.local.training.sampled_batches import PLAIN, batch
from distillkit.training_data import Batch
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.chunked_loss import SAMPLED_TIMES, ChunkedLoss
from distillkit_builtin.local.training.head_gradients import HeadGradients, with_gradients
from distillkit_builtin.local.training.micro_batch_loss import items_of, token_loss_in
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.positions import SampledPositions
from distillkit_builtin.local.training.trainer import Trainer

Load = Callable[..., CausalLM]


def trainer_of(causal_lm: CausalLM, positions: int) -> Trainer:
    chunk = AdaptiveBatchSize(positions, "positions of head and loss", "student.loss_chunk_positions")
    return Trainer(Policy.full(causal_lm), PLAIN, ChunkedLoss(chunk))


def plain_gradients(causal_lm: CausalLM, data: Batch) -> dict[str, Tensor]:
    """Through logits that are all there, by autograd."""
    states = causal_lm.response_states(items_of(data.datums))
    logits = causal_lm.head(states.hidden).float()
    logprobs = torch.log_softmax(logits, dim=1).gather(1, states.ids[:, None])[:, 0]
    names = data.datums[0].inputs
    inputs = {name: torch.cat([torch.tensor(datum.inputs[name]) for datum in data.datums]) for name in names}
    weights, sampling = inputs.pop("weights"), inputs.pop("sampling_logprobs")
    losses = token_loss_in(data)(SampledPositions(logprobs, sampling, inputs), data.options)
    (weights * losses).sum().backward()
    return {name: p.grad.clone() for name, p in causal_lm.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("positions", [1, 3, 500])
def test_the_gradient_of_all_weights_is_that_of_logits_that_are_all_there(
    load: Load, tmp_path: Path, family: str, positions: int
) -> None:
    """Of a head that is tied to the embeddings (llama), and of one of its own (qwen3)."""
    causal_lm = load(tiny_models.write_model(tmp_path / family, family=family, seed=3))
    data, trainer = batch(), trainer_of(causal_lm, positions)
    expected = plain_gradients(causal_lm, data)
    trainer.compute_gradient(data)
    for name, parameter in causal_lm.model.named_parameters():
        assert parameter.grad is not None
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=2e-5 * scale + 1e-9)


def test_no_head_is_computed_twice_nor_for_more_positions_than_a_chunk_has(
    load: Load, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    causal_lm, data, seen = load(tiny_model), batch(), []
    head = CausalLM.head

    def watched(self: CausalLM, hidden: Tensor) -> Tensor:
        seen.append(len(hidden))
        return head(self, hidden)

    monkeypatch.setattr(CausalLM, "head", watched)
    trainer_of(causal_lm, 2).compute_gradient(data)
    assert max(seen) == 2 * SAMPLED_TIMES
    assert sum(seen) == sum(np.count_nonzero(datum.inputs["weights"]) for datum in data.datums)


def test_gradients_of_a_sum_are_handed_on_scaled() -> None:
    hidden, head = torch.randn(5, 3, requires_grad=True), torch.nn.Parameter(torch.randn(4, 3))

    def compute(gradients: HeadGradients) -> Tensor:
        total = torch.zeros(())
        for at in torch.arange(5).split(2):
            with torch.enable_grad():
                chunk = gradients.hidden[at].requires_grad_()
                loss = (chunk @ head.t()).square().sum()
            gradients.add(at, loss, chunk)
            total += loss.detach()
        return total

    (3.0 * with_gradients(compute, hidden, (head,))).backward()
    found = hidden.grad, head.grad
    expected = torch.autograd.grad(3.0 * (hidden @ head.t()).square().sum(), [hidden, head])
    torch.testing.assert_close(found, expected)
