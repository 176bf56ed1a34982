from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distillkit.types import token_ids
from distillkit_builtin.local import packing
from distillkit_builtin.local.fast.trunk import Unknown
from distillkit_builtin.local.network import Network, PromptAndResponse
from distillkit_builtin.local.packing import ATTENTION, balanced, packed_batches, packed_logprobs, require_packable
from distillkit_builtin.local.policy import Policy

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=40)


def items(*sizes: tuple[int, int]) -> list[PromptAndResponse]:
    numbers = np.random.default_rng(0)
    return [
        PromptAndResponse(token_ids(numbers.integers(5, 250, p)), token_ids(numbers.integers(5, 250, r)))
        for p, r in sizes
    ]


def test_packed_logprobs_are_those_of_each_sequence_alone(network: Network) -> None:
    some = items((5, 9), (40, 1), (1, 30), (12, 12))
    alone = torch.cat([network.response_logprobs([item])[0] for item in some])
    assert torch.allclose(packed_logprobs(network, some), alone, atol=1e-5)


def test_packed_gradients_are_those_of_padded_sequences(load: Callable[..., Network], tiny_model: str) -> None:
    some = items((5, 9), (40, 1), (1, 30))
    gradients = []
    for packs in (True, False):
        policy = Policy.full(load(tiny_model))
        if packs:
            policy.pack()
        policy.logprobs(some).square().sum().backward()
        gradients.append({name: p.grad for name, p in policy.trained.items()})
    for name, mine in gradients[0].items():
        theirs = gradients[1][name]
        assert mine is not None
        assert theirs is not None
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())), name


def test_attention_is_the_models_own_again_afterwards(network: Network) -> None:
    before = network.model.config._attn_implementation
    packed_logprobs(network, items((3, 3)))
    assert network.model.config._attn_implementation == before != ATTENTION


def test_a_model_that_computes_something_else_when_it_is_packed_is_refused(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_packable(network)
    rotary = network.trunk.get_submodule("rotary_emb")
    width = network.model.config.head_dim
    monkeypatch.setattr(
        rotary, "forward", lambda x, position_ids: [torch.rand(*position_ids.shape, width) for _ in range(2)]
    )
    with pytest.raises(Unknown, match="of their norm away"):
        require_packable(network)


def test_attention_with_dropout_is_not_packed(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.model.config, "attention_dropout", 0.1)
    with pytest.raises(Unknown, match="dropout"):
        Policy.full(network).pack()


def test_layers_of_padded_sequences_are_not_compiled(network: Network) -> None:
    with pytest.raises(Unknown, match="padded"):
        Policy.full(network).compile()


@given(LENGTHS, st.integers(1, 300))
def test_packed_batches_hold_each_item_once_and_keep_to_the_limit(lengths: list[int], limit: int) -> None:
    groups = packed_batches(lengths, limit)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or sum(lengths[i] for i in group) <= limit for group in groups)


@given(LENGTHS, st.integers(1, 8))
def test_balanced_groups_differ_by_one_item_at_most(lengths: list[int], parts: int) -> None:
    groups = balanced(lengths, parts)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in group) for group in groups]
    assert max(sums) - min(sums) <= max(lengths)


@pytest.mark.parametrize("short", [0, 512])
def test_attention_of_long_and_of_short_sequences_is_the_same(
    network: Network, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "SHORT", short)
    some = items((5, 9), (3, 11), (40, 1), (1, 30), (12, 19))
    alone = torch.cat([network.response_logprobs([item])[0] for item in some])
    assert torch.allclose(packed_logprobs(network, some), alone, atol=1e-5)
