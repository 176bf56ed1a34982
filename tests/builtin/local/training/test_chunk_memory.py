"""How large a chunk is, and what becomes of it where memory ends."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.distribution_losses import distribution_batch

from builtin.local.training.chunked_trainers import gradients, policy_of, trainer_of
from builtin.local.training.sampled_batches import PLAIN
from distillkit_builtin.local.batches import adaptive_batch_size
from distillkit_builtin.local.memory.allocation_meter import AllocationMeter
from distillkit_builtin.local.model.causal_lm import CausalLM, ResponseStates
from distillkit_builtin.local.training import chunked_loss
from distillkit_builtin.local.training.counted_positions import CountedPositions

Load = Callable[..., CausalLM]


def test_out_of_memory_makes_the_chunk_smaller_then_the_micro_batch(
    load: Load, tiny_model: str, other_tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = distribution_batch("everything", count=20)
    whole = policy_of(load(tiny_model), "all")
    expected = trainer_of(whole, load(other_tiny_model)).compute_gradient(data)
    policy = policy_of(load(tiny_model), "all")
    trainer = trainer_of(policy, load(other_tiny_model))
    read, most = chunked_loss.HeadGradients.add, [20]
    monkeypatch.setattr(adaptive_batch_size.gc, "collect", lambda: 0)  # it takes most of the time, and frees nothing

    def limited(self: Any, at: torch.Tensor, *rest: Any) -> None:
        if len(at) > most[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        read(self, at, *rest)

    monkeypatch.setattr(chunked_loss.HeadGradients, "add", limited)
    share = trainer.compute_gradient(data)
    assert (trainer.chunked.chunk.size, trainer.micro_batch.size) == (16, PLAIN.micro_batch_tokens)
    assert share.loss == pytest.approx(expected.loss, rel=1e-5)
    assert share.mismatch.tokens == expected.mismatch.tokens
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(
            gradients(policy)[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())
        )
    told: list[str] = []
    trainer.report(lambda message, kind="note": told.append(message))
    assert any("done again with 16 positions of head and loss at once; student.loss_chunk_positions" in t for t in told)
    most[0] = 12  # fewer than the smallest chunk: as many as a micro-batch then has
    share = trainer.compute_gradient(data)
    assert trainer.chunked.chunk.size == 16
    assert trainer.micro_batch.size < 100
    assert share.loss == pytest.approx(expected.loss, rel=1e-5)


def test_a_chunk_counts_once_wherever_the_memory_ends(
    load: Load, tiny_model: str, other_tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the mass of rows that no token has is summed up: its gradient by the head would be there twice."""
    data = distribution_batch("reverse_kl")
    policy = policy_of(load(tiny_model), "all")
    trainer = trainer_of(policy, load(other_tiny_model), positions=32, known=255)
    share = trainer.compute_gradient(data)
    expected = gradients(policy)
    assert share.unknown.student_positions == share.mismatch.tokens
    stack, left = torch.stack, [1]

    def limited(tensors: Any, *rest: Any, **options: Any) -> torch.Tensor:
        if left[0] and len(tensors) == 2 and tensors[0].ndim == 0:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return stack(tensors, *rest, **options)

    monkeypatch.setattr(torch, "stack", limited)
    again = trainer.compute_gradient(data)
    assert (left, trainer.chunked.chunk.size) == ([0], 16)
    assert again.unknown.student_positions == share.unknown.student_positions
    for name, gradient in expected.items():
        torch.testing.assert_close(
            gradients(policy)[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())
        )


@pytest.mark.parametrize("how", ["lora", "all"])
def test_memory_does_not_grow_with_tokens_times_vocabulary(load: Load, tiny_model: str, how: str) -> None:
    """Head and loss alone, of hidden states that are made up: all tensors are counted, backward passes too."""
    vocabulary, chunk = 4000, 16
    policy, teacher = policy_of(load(tiny_model), how), load(tiny_model)
    for causal_lm in (policy.causal_lm, teacher):
        head = causal_lm.model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.randn(vocabulary, 32), requires_grad=how == "all")
    peaks = []
    for count in (10, 100):
        data = distribution_batch("everything", count=count)
        counted = CountedPositions.of(data.datums, torch.device("cpu"))
        hidden = torch.randn(len(counted), 32, requires_grad=True)
        states = ResponseStates(hidden, torch.zeros(len(counted), dtype=torch.long))
        chunked_loss = trainer_of(policy, teacher, positions=chunk).chunked
        routes = chunked_loss.routes(data, counted)
        policy.with_response_states = lambda items, index, work, states=states: work(states)  # type: ignore[method-assign]
        with AllocationMeter() as meter:
            torch.autograd.backward(chunked_loss.loss(policy, data, counted, routes).total)
        peaks.append((len(counted), meter.peak))
    (few, least), (many, most) = peaks
    assert least > 5 * chunk * vocabulary * 4  # the chunk's distributions are seen
    assert most - least < 0.1 * (many - few) * vocabulary * 4
