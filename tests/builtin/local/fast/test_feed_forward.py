"""Experts beside transformers' own, one expert after the other in float32."""

import pytest
import torch
from helpers.fast_families import fast_family
from torch import Tensor

from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.feed_forward import Experts

MIXTURES = {"mixtral": "mlp", "qwen2_moe": "mlp", "qwen3_moe": "mlp", "olmoe": "mlp", "granitemoe": "block_sparse_moe"}


def both(name: str) -> tuple[Experts, torch.nn.Module]:
    """The same first layer, ours and transformers' by its eager loop over experts."""
    causal_lm = fast_family(name)
    causal_lm.model.config._experts_implementation = "eager"
    ours = FastBackbone(causal_lm).layers[0].feed_forward
    assert isinstance(ours, Experts)
    return ours, causal_lm.backbone.get_submodule("layers.0").get_submodule(MIXTURES[name])


def hidden(count: int) -> Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("count", [1, 2, 50])
@torch.no_grad()
def test_a_mixture_gives_what_transformers_loop_over_experts_does(name: str, count: int) -> None:
    ours, theirs = both(name)
    torch.testing.assert_close(ours(hidden(count)), theirs(hidden(count)[None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MIXTURES)
@torch.no_grad()
def test_all_tokens_may_choose_the_same_experts(name: str) -> None:
    """Most experts have no token then."""
    ours, theirs = both(name)
    ours.router[[1, 3]] = 2.0  # views of the model's own
    ours.router[[0, 2]] = -2.0
    tokens = hidden(20).abs()
    assert ours.route(tokens)[1].unique().tolist() == [1, 3]
    torch.testing.assert_close(ours(tokens), theirs(tokens[None])[0], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_a_tokens_mixture_does_not_depend_on_the_tokens_beside_it() -> None:
    ours, _ = both("qwen3_moe")
    together = ours(hidden(20))
    for row, token in enumerate(hidden(20)):
        torch.testing.assert_close(ours(token[None])[0], together[row], atol=1e-5, rtol=1e-5)
