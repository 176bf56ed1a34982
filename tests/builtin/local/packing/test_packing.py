from collections.abc import Callable

import numpy as np
import pytest
import torch

from distillkit.arrays import token_ids
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.packing import packed_attention
from distillkit_builtin.local.packing.packed_attention import ATTENTION
from distillkit_builtin.local.packing.packed_forward import packed_response_states
from distillkit_builtin.local.packing.packing import PackedRow, _separate
from distillkit_builtin.local.packing.packing_proof import require_packable
from distillkit_builtin.local.training.policy import Policy


def items(*sizes: tuple[int, int]) -> list[PromptAndResponse]:
    numbers = np.random.default_rng(0)
    return [
        PromptAndResponse(token_ids(numbers.integers(5, 250, p)), token_ids(numbers.integers(5, 250, r)))
        for p, r in sizes
    ]


def packed_logprobs(causal_lm: CausalLM, some: list[PromptAndResponse]) -> torch.Tensor:
    return causal_lm.logprobs(packed_response_states(causal_lm, some))


def test_packed_logprobs_are_those_of_each_sequence_alone(causal_lm: CausalLM) -> None:
    some = items((5, 9), (40, 1), (1, 30), (12, 12))
    alone = torch.cat([causal_lm.response_logprobs([item]) for item in some])
    assert torch.allclose(packed_logprobs(causal_lm, some), alone, atol=1e-5)


def test_packed_gradients_are_those_of_padded_sequences(load: Callable[..., CausalLM], tiny_model: str) -> None:
    some = items((5, 9), (40, 1), (1, 30))
    some += [PromptAndResponse(some[0].prompt_ids, other.response_ids) for other in some]
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


def test_attention_is_the_models_own_again_afterwards(causal_lm: CausalLM) -> None:
    before = causal_lm.model.config._attn_implementation
    packed_logprobs(causal_lm, items((3, 3)))
    assert causal_lm.model.config._attn_implementation == before != ATTENTION


def test_a_model_that_computes_something_else_when_it_is_packed_is_refused(
    causal_lm: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_packable(causal_lm)
    rotary = causal_lm.backbone.get_submodule("rotary_emb")
    width = causal_lm.model.config.head_dim
    monkeypatch.setattr(
        rotary, "forward", lambda x, position_ids: [torch.rand(*position_ids.shape, width) for _ in range(2)]
    )
    with pytest.raises(UnsupportedModelError, match="of their norm away"):
        require_packable(causal_lm)


def test_layers_of_padded_sequences_are_not_compiled(causal_lm: CausalLM) -> None:
    with pytest.raises(UnsupportedModelError, match="padded"):
        Policy.full(causal_lm).compile()


def test_a_prompt_with_several_responses_is_read_once(causal_lm: CausalLM) -> None:
    first, second = items((5, 9), (7, 4))
    again = PromptAndResponse(first.prompt_ids, second.response_ids)
    packed = PackedRow.of([first, second, again], torch.device("cpu"))
    assert packed.ids.shape == (1, 5 + 8 + 7 + 3 + 3)  # without a response's last token, which predicts nothing
    alone = torch.cat([causal_lm.response_logprobs([item]) for item in (first, second, again)])
    assert torch.allclose(packed_logprobs(causal_lm, [first, second, again]), alone, atol=1e-5)


def test_on_cuda_every_sequence_stands_by_itself() -> None:
    first, second = items((5, 9), (7, 4))
    segments, predicting = _separate([first, PromptAndResponse(first.prompt_ids, second.response_ids)])
    assert [len(segment.ids) for segment in segments] == [13, 8]
    assert [list(offsets) for _, offsets in predicting] == [list(range(4, 13)), list(range(4, 8))]


@pytest.mark.parametrize("short", [0, 512])
def test_attention_of_long_and_of_short_sequences_is_the_same(
    causal_lm: CausalLM, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_attention, "SHORT", short)
    some = items((5, 9), (3, 11), (40, 1), (1, 30), (12, 19))
    alone = torch.cat([causal_lm.response_logprobs([item]) for item in some])
    assert torch.allclose(packed_logprobs(causal_lm, some), alone, atol=1e-5)
