"""Families pack because they are proved to, and what is wrong with a row is found however small it is."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_causal_lm
from helpers.recurrent_families import RECURRENT
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from builtin.local.test_sequence_proof import items, reference
from distillkit_builtin.local import packed_attention, packing_proof
from distillkit_builtin.local.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.attention_proof import require_exact_attention
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.packed_attention import ATTENTION, AttentionCall
from distillkit_builtin.local.packing_proof import require_packable
from distillkit_builtin.local.policy import Policy

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


Allowed = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of what may be read [T, T], where segments begin [n], and where they end [n]: what is read instead."""


def explicit(change: Allowed, *, window: int = 0) -> Callable[..., tuple[Tensor, None]]:
    """Packed attention by one big mask, changed; each layer's window is longer by `window` tokens."""

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, *, scaling: float,
        cu_seq_lens_q: Tensor, cu_seq_lens_k: Tensor, keys: Tensor | None = None, sliding_window: int | None = None,
        calls: list[AttentionCall] | None = None, **rest: object,
    ) -> tuple[Tensor, None]:  # fmt: skip
        if calls is not None:
            shape = (query.shape[1], key.shape[1], query.shape[3], value.shape[3])
            calls.append(AttentionCall(sliding_window, scaling, *shape))
        length = query.shape[2]
        order = torch.arange(length) if keys is None else keys
        allowed = torch.zeros(length, length, dtype=torch.bool)
        ends, key_ends = cu_seq_lens_q.tolist(), cu_seq_lens_k.tolist()
        for start, end, first, last in zip(ends, ends[1:], key_ends, key_ends[1:], strict=False):
            for token in range(start, end):
                read = order[first : last - (end - 1 - token)]
                allowed[token, read if sliding_window is None else read[-(sliding_window + window) :]] = True
        allowed = change(allowed, cu_seq_lens_q[:-1].long(), cu_seq_lens_q[1:].long())
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        scores = (query @ key.transpose(2, 3)).float() * scaling
        weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1).to(value.dtype)
        return (weights @ value).transpose(1, 2), None

    return attend


def right(allowed: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    return allowed


def leaks(allowed: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The last token of one sequence reads the last token of the one before; all else is right."""
    allowed[ends[-1] - 1, starts[-1] - 1] = True
    return allowed


def leaks_ahead(allowed: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    allowed[ends[0] - 1, ends[0]] = True
    return allowed


def forgets(allowed: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The last token of each sequence of several does not read the first one that it should."""
    for end in ends:
        read = allowed[end - 1].nonzero().flatten()
        if len(read) > 1:
            allowed[end - 1, read[0]] = False
    return allowed


@pytest.fixture
def put() -> Iterator[Callable[[Any], None]]:
    """Puts another attention in the place of the one for packed rows.

    By registering it: an item that is set in the mapping would stand before all that are registered later.
    """
    before = ALL_ATTENTION_FUNCTIONS[ATTENTION]
    yield lambda attend: ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, before)


def llama(dtype: torch.dtype, **over: Any) -> CausalLM:
    causal_lm = random_causal_lm("llama", **over)
    causal_lm.model.to(dtype)
    causal_lm.dtype = dtype
    return causal_lm


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@DTYPES
@pytest.mark.parametrize("change", [leaks, leaks_ahead, forgets])
def test_attention_to_one_token_too_many_or_too_few_is_found(
    put: Callable[[Any], None], change: Allowed, dtype: torch.dtype
) -> None:
    causal_lm, call = llama(dtype), AttentionCall(None, 8**-0.5, 4, 2, 8, 8)
    put(explicit(right))
    require_exact_attention(causal_lm, call)
    put(explicit(change))
    with pytest.raises(UnsupportedModelError, match="reads other tokens than it should"):
        require_exact_attention(causal_lm, call)


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


@pytest.mark.parametrize("window", [1000, 12])
def test_a_window_of_one_token_more_is_found(put: Callable[[Any], None], window: int) -> None:
    causal_lm, call = llama(torch.bfloat16), AttentionCall(window, 0.4, 2, 1, 4, 4)
    require_exact_attention(causal_lm, call)
    if window == 12:
        put(explicit(right, window=1))
        with pytest.raises(UnsupportedModelError, match="reads other tokens than it should"):
            require_exact_attention(causal_lm, call)


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


@pytest.mark.parametrize("value", [5.0, torch.ones(1), True, "any"])
def test_a_keyword_of_attention_that_is_not_known_is_not_dropped(value: object) -> None:
    with pytest.raises(UnsupportedModelError, match="'attention_slope'"):
        attended(attention_slope=value)
    attended(attention_slope=None)


def test_attention_with_dropout_or_in_both_directions_is_refused() -> None:
    attended(dropout=0.0, is_causal=True)
    with pytest.raises(UnsupportedModelError, match="'dropout'"):
        attended(dropout=0.1)
    with pytest.raises(UnsupportedModelError, match="not causal"):
        attended(is_causal=False)


def attended(**options: object) -> None:
    """Attention to three tokens, called with more options."""
    tokens, ends = torch.rand(1, 2, 3, 4), torch.tensor([0, 3])
    ALL_ATTENTION_FUNCTIONS[ATTENTION](
        nn.Module(), tokens, tokens, tokens, None, cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=3, **options
    )


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


@pytest.mark.parametrize(("window", "key_width", "value_width"), [(None, 8, 8), (5, 8, 8), (None, 8, 6), (5, 6, 8)])
def test_flash_attention_is_asked_for_what_the_layers_ask(
    window: int | None, key_width: int, value_width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that computes what PyTorch says of `varlen_attn`: equal widths, tokens before one and behind."""

    def varlen(
        query: Tensor, key: Tensor, value: Tensor, *rest: Any, scale: float, window_size: tuple[int, int]
    ) -> Tensor:
        assert query.shape[-1] == key.shape[-1] == value.shape[-1]
        before, behind = window_size
        apart = torch.arange(len(query))[:, None] - torch.arange(len(key))
        allowed = (apart >= -behind) & ((apart <= before) if before >= 0 else torch.tensor(True))
        scores = torch.einsum("qhd,khd->hqk", query, key) * scale
        return torch.einsum("hqk,khd->qhd", torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1), value)

    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 11, key_width, generator=generator) for _ in range(2))
    value, ends = torch.randn(1, 2, 11, value_width, generator=generator), torch.tensor([0, 11])
    options = {"scaling": 0.7, "sliding_window": window, "max_length_q": 16}
    attend = ALL_ATTENTION_FUNCTIONS[ATTENTION]
    given = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, **options}
    expected, _ = attend(nn.Module(), query, key, value, None, **given)
    monkeypatch.setattr(packed_attention, "varlen_attention", varlen)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    found, _ = attend(nn.Module(), query, key, value, None, **given)
    torch.testing.assert_close(found, expected)
