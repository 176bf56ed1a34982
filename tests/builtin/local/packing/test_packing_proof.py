"""Families pack because they are proved to, and what is wrong with a row is found however small it is."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from helpers.explicit_attention import DTYPES, Allowed, explicit, forgets, leaks, leaks_ahead, llama, right
from helpers.model_families import random_causal_lm
from helpers.own_forward import reference
from helpers.recurrent_families import RECURRENT
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from builtin.local.batches.proved_items import items
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.packing import packing_proof
from distillkit_builtin.local.packing.packed_attention import ATTENTION
from distillkit_builtin.local.packing.packing_proof import require_packable
from distillkit_builtin.local.training.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.training.policy import Policy

LATENT: dict[str, Any] = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1, "head_dim": 4,
    "num_experts_per_tok": 2,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}
WINDOW: dict[str, Any] = {"sliding_window": 12}
LAYERS = ["sliding_attention", "full_attention"]
PACKED: Mapping[str, dict[str, Any]] = {
    "qwen3_moe": {"moe_intermediate_size": 16}, "qwen2_moe": {"moe_intermediate_size": 16}, "olmo": {}, "olmo2": {},
    "olmoe": {}, "granite": {"attention_multiplier": 0.7, "residual_multiplier": 0.4}, "granitemoe": {}, "glm": {},
    "glm4": {}, "glm4_moe": EXPERTS, "phi": {}, "ernie4_5": {}, "ernie4_5_moe": {"moe_intermediate_size": 16},
    "hunyuan_v1_dense": {}, "gpt_neox": {}, "apertus": {}, "arcee": {}, "hyperclovax": {}, "deepseek_v3": LATENT,
    "smollm3": {}, "cohere": {}, "gemma": {}, "minimax_m2": {}, "helium": {}, "iquestcoder": {},
    "gpt2": {}, "opt": {}, "seed_oss": {}, "ctrl": {"n_positions": 512, "dff": 48},
    "mistral": WINDOW, "ministral3": WINDOW, "mixtral": WINDOW, "phi3": WINDOW, "starcoder2": WINDOW,
    "qwen3": {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    "gemma3_text": {**WINDOW, "layer_types": LAYERS}, "cohere2": {**WINDOW, "layer_types": LAYERS},
    "olmo3": {**WINDOW, "layer_types": LAYERS}, "exaone4": {**WINDOW, "layer_types": LAYERS},
}  # fmt: skip
"""Random weights; windows are shorter than the sequences."""


@pytest.mark.parametrize("name", PACKED)
def test_a_proved_family_gives_the_logprobs_of_each_sequence_alone(name: str) -> None:
    causal_lm = random_causal_lm(name, **PACKED[name])
    policy = Policy.full(causal_lm)
    policy.pack()
    with policy.training():
        found = policy.logprobs(items()).detach()
    torch.testing.assert_close(found, torch.cat([reference(causal_lm, item) for item in items()]), atol=1e-4, rtol=1e-4)


REFUSED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gemma2": ("called with 'softcap'", {}),
    "gpt_oss": ("called with 's_aux'", WINDOW),
    "doge": ("called with 'attention_mask'", {}),
    "stablelm": ("do not pass on to attention where sequences end", {}),
    "nemotron": ("do not pass on to attention where sequences end", {}),
    "bloom": ("compute attention by themselves", {"n_head": 4}),
    "mpt": ("cannot be computed here: AttributeError", {"d_model": 32, "n_heads": 4, "n_layers": 2}),
    "diffllama": ("its 2 layers ask for attention 4 times", {}),
    "qwen3_5_text": ("no plain attention", RECURRENT["qwen3_5_text"]),
    "lfm2": ("no plain attention", RECURRENT["lfm2"]),
    "mamba": ("no plain attention", RECURRENT["mamba"]),
    "deepseek_v32": ("no plain attention", LATENT),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_families_say_why_they_are_padded(name: str) -> None:
    reason, over = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=reason):
        require_packable(random_causal_lm(name, **over))


@pytest.mark.parametrize(
    ("change", "dtype"),
    [(leaks, torch.float32), (leaks, torch.bfloat16), (leaks_ahead, torch.bfloat16), (forgets, torch.float32)],
)
def test_a_model_that_reads_one_token_too_many_or_too_few_is_found(
    put: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, change: Allowed, dtype: torch.dtype
) -> None:
    """Where attention by itself was right."""
    causal_lm = llama(dtype)
    put(explicit(right))
    require_packable(causal_lm)
    put(explicit(change))
    monkeypatch.setattr(packing_proof, "require_exact_attention", lambda causal_lm, call: None)
    with pytest.raises(UnsupportedModelError, match=r"tokens of others|of their norm away"):
        require_packable(causal_lm)


def test_attention_that_ignores_a_keyword_is_found(put: Callable[[Any], None]) -> None:
    causal_lm = random_causal_lm("granite", attention_multiplier=0.9)
    require_packable(causal_lm)
    attend = explicit(right)
    put(lambda *args, scaling, **kwargs: attend(*args, scaling=8**-0.5, **kwargs))
    with pytest.raises(UnsupportedModelError, match=r"hidden states are .* away"):
        require_packable(causal_lm)


def test_a_window_that_is_left_to_a_mask_is_found(put: Callable[[Any], None]) -> None:
    causal_lm = random_causal_lm("mistral", sliding_window=300)
    require_packable(causal_lm)
    attend = ALL_ATTENTION_FUNCTIONS[ATTENTION]
    put(lambda *args, sliding_window, **kwargs: attend(*args, **kwargs))
    with pytest.raises(UnsupportedModelError, match=r"asks attention for no window, and its config declares .* 300"):
        require_packable(causal_lm)


def test_attention_with_another_backward_pass_is_found(put: Callable[[Any], None]) -> None:
    attend = explicit(right)
    put(lambda module, query, key, value, *args, **kwargs: attend(module, query, key.detach(), value, *args, **kwargs))
    with pytest.raises(UnsupportedModelError, match=r"gradients are .* away"):
        require_packable(llama(torch.float32))


def changed_layer(causal_lm: CausalLM, change: Callable[[Tensor], Tensor]) -> None:
    """Change what the first layer's MLP gives [1, T, hidden]."""
    mlp = causal_lm.backbone.get_submodule("layers.0.mlp")
    mlp.register_forward_hook(lambda module, inputs, output: change(output))


def with_capacity(output: Tensor) -> Tensor:
    """Tokens that choose the same expert as many others are dropped: which, no gradient says."""
    chosen = output[0, :, :4].argmax(dim=-1)
    turn = torch.nn.functional.one_hot(chosen, 4).cumsum(0).gather(1, chosen[:, None])
    return output * (turn <= 12)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_capacity, "away from those of single sequences"),
        (lambda output: output * output.detach().norm() / 20, "away from those of single sequences"),
        (lambda output: output - output.mean(1, keepdim=True), "depend on tokens of others"),
        (lambda output: output + 1e-6 * output.roll(1, 1), "depend on tokens of others"),
    ],
)
@DTYPES
def test_layers_that_look_at_the_whole_row_are_found(
    change: Callable[[Tensor], Tensor], reason: str, dtype: torch.dtype
) -> None:
    causal_lm = llama(dtype)
    changed_layer(causal_lm, change)
    with pytest.raises(UnsupportedModelError, match=reason):
        require_packable(causal_lm)


@pytest.mark.parametrize("error", [KeyError("rotary"), IndexError("axis"), AssertionError(), ImportError("kernels")])
def test_an_error_of_a_familys_own_code_is_a_reason(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    causal_lm = llama(torch.float32)

    def fail(*args: object, **kwargs: object) -> object:
        raise error

    monkeypatch.setattr(causal_lm.backbone, "forward", fail)
    with pytest.raises(UnsupportedModelError, match=f"cannot be computed here: {type(error).__name__}"):
        require_packable(causal_lm)


def test_memory_that_runs_out_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    causal_lm = llama(torch.float32)

    def fail(*args: object, **kwargs: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(causal_lm.backbone, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError):
        require_packable(causal_lm)


def test_a_vocabulary_in_which_no_token_says_whose_it_is_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="vocabulary of 20 ids"):
        require_packable(random_causal_lm("llama", vocab_size=20))


@pytest.mark.parametrize("name", ["olmo2", "ctrl"])
def test_a_lora_that_has_learned_packs_too(name: str) -> None:
    """Also on a model that scales its embeddings in place: they are given to it, and a gradient is asked of them."""
    policy = Policy.lora(random_causal_lm(name, **PACKED[name]), 4, 8, 0.0, 0)
    with torch.no_grad():
        for name, parameter in policy.trained.items():
            parameter.copy_(torch.from_numpy(np.random.default_rng(len(name)).normal(0, 0.1, parameter.shape)))
    gradients = []
    for pack in (lambda: None, policy.pack):
        pack()
        with policy.training():
            policy.logprobs(items()).sum().backward()
        gradients.append(
            [parameter.grad.clone() for parameter in policy.trained.values() if parameter.grad is not None]
        )
        policy.causal_lm.model.zero_grad()
    assert policy.packs
    assert len(gradients[0]) == len(policy.trained)
    for padded, packed in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_a_model_that_recomputes_its_activations_packs_too(name: str) -> None:
    causal_lm = random_causal_lm(name, **PACKED.get(name, {}))
    checkpoint_activations(causal_lm.model)
    require_packable(causal_lm)
