from collections import Counter

import pytest
import torch

from distillkit_builtin.local.fast.fused_ops import logprobs_of
from distillkit_builtin.local.fast.sample_token import CHUNK, draw


def law(size: int) -> torch.Tensor:
    return torch.softmax(torch.randn(size, generator=torch.Generator().manual_seed(0)) * 2, 0)


@pytest.mark.parametrize("size", [5, CHUNK, 3 * CHUNK + 7])
def test_tokens_are_drawn_by_their_probabilities(size: int) -> None:
    draws = 50_000
    uniforms = (torch.arange(draws) + 0.5) / draws
    wanted = law(size)
    index, logprob = draw((wanted.log() + 3)[None].expand(draws, -1), uniforms)
    counts = Counter(index.tolist())
    assert [counts[i] / draws for i in range(size)] == pytest.approx(wanted.tolist(), abs=1e-4)
    torch.testing.assert_close(logprob, wanted.log()[index], atol=1e-5, rtol=1e-5)


def test_the_token_is_the_first_whose_cumulative_probability_exceeds_the_uniform() -> None:
    wanted = law(300).double()
    uniforms = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    index, _ = draw(wanted.log().float()[None].expand(1000, -1), uniforms)
    expected = torch.searchsorted(wanted.cumsum(0), uniforms.double(), right=True)
    assert (index == expected).float().mean() > 0.995  # the others lie within rounding of a boundary
    assert (index - expected).abs().max() <= 1


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_what_has_no_probability_is_never_drawn(uniform: float) -> None:
    logits = torch.full((4, 2 * CHUNK + 1), -torch.inf)
    alone = [0, CHUNK - 1, CHUNK, 2 * CHUNK]
    logits[torch.arange(4), alone] = torch.tensor([-50.0, 0.0, 3.0, 80.0])
    index, logprob = draw(logits, torch.full((4,), uniform))
    assert index.tolist() == alone
    assert logprob.tolist() == [0.0] * 4


def test_logprobs_are_those_of_a_softmax() -> None:
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0)) * 5
    ids = torch.arange(6) * 50
    torch.testing.assert_close(logprobs_of(logits, ids), torch.log_softmax(logits, 1)[torch.arange(6), ids])
