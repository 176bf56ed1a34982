from collections import Counter

import pytest
import torch

from distillkit_builtin.local.fast.sample_token import CHUNK, sample_token
from distillkit_builtin.local.model.fused_ops import logprobs_of


def distribution(size: int) -> torch.Tensor:
    return torch.softmax(torch.randn(size, generator=torch.Generator().manual_seed(0)) * 2, 0)


@pytest.mark.parametrize("size", [5, CHUNK, 3 * CHUNK + 7])
def test_tokens_are_sampled_by_their_probabilities(size: int) -> None:
    count = 50_000
    uniforms = (torch.arange(count) + 0.5) / count
    probabilities = distribution(size)
    index, logprob = sample_token((probabilities.log() + 3)[None].expand(count, -1), uniforms)
    counts = Counter(index.tolist())
    assert [counts[i] / count for i in range(size)] == pytest.approx(probabilities.tolist(), abs=1e-4)
    torch.testing.assert_close(logprob, probabilities.log()[index], atol=1e-5, rtol=1e-5)


def test_the_token_is_the_first_whose_cumulative_probability_exceeds_the_uniform() -> None:
    probabilities = distribution(300).double()
    uniforms = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    index, _ = sample_token(probabilities.log().float()[None].expand(1000, -1), uniforms)
    expected = torch.searchsorted(probabilities.cumsum(0), uniforms.double(), right=True)
    assert (index == expected).float().mean() > 0.995  # the others lie within rounding of a boundary
    assert (index - expected).abs().max() <= 1


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_what_has_no_probability_is_never_sampled(uniform: float) -> None:
    logits = torch.full((4, 2 * CHUNK + 1), -torch.inf)
    alone = [0, CHUNK - 1, CHUNK, 2 * CHUNK]
    logits[torch.arange(4), alone] = torch.tensor([-50.0, 0.0, 3.0, 80.0])
    index, logprob = sample_token(logits, torch.full((4,), uniform))
    assert index.tolist() == alone
    assert logprob.tolist() == [0.0] * 4


def test_logprobs_are_those_of_a_softmax() -> None:
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0)) * 5
    ids = torch.arange(6) * 50
    torch.testing.assert_close(logprobs_of(logits, ids), torch.log_softmax(logits, 1)[torch.arange(6), ids])
