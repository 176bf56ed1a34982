import pytest
import torch

from distillkit_builtin.local.model.token_logprobs import token_logprobs


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_values_and_gradients_are_those_of_a_softmax_over_everything(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("distillkit_builtin.local.model.token_logprobs.CHUNK_TOKENS", chunk)
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 30, bias=False)
    hidden = torch.randn(20, 6, requires_grad=True)
    ids = torch.randint(0, 30, (20,))
    weights = torch.randn(20)

    plain = torch.log_softmax(head(hidden), dim=1)[torch.arange(20), ids]
    expected = torch.autograd.grad((plain * weights).sum(), [hidden, head.weight])
    ours = token_logprobs(head, hidden, ids)
    found = torch.autograd.grad((ours * weights).sum(), [hidden, head.weight])

    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_frozen_head_gives_the_same_gradient_and_is_computed_once(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("distillkit_builtin.local.model.token_logprobs.CHUNK_TOKENS", chunk)
    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 30, bias=False).requires_grad_(False)
    seen: list[int] = []

    def head(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden))
        return torch.tanh(linear(hidden) / 5) * 5

    hidden = torch.randn(20, 6, requires_grad=True)
    ids = torch.randint(0, 30, (20,))
    plain = torch.log_softmax(head(hidden), dim=1)[torch.arange(20), ids]
    (expected,) = torch.autograd.grad(plain.exp().sum(), hidden)
    seen.clear()
    ours = token_logprobs(head, hidden, ids, frozen_head=True)
    (found,) = torch.autograd.grad(ours.exp().sum(), hidden)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(found, expected)
    assert sum(seen) == 20


def test_they_are_float32_whatever_the_head_computes_in() -> None:
    head = torch.nn.Linear(6, 30, bias=False, dtype=torch.bfloat16)
    assert token_logprobs(head, torch.randn(3, 6, dtype=torch.bfloat16), torch.tensor([1, 2, 3])).dtype == torch.float32
