"""A sequence's logprobs are its own, on every path: a model is proved before it is used, and real families hold."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.explicit_attention import attention_in_the_place_of
from helpers.model_families import random_causal_lm, random_model
from helpers.own_forward import reference
from helpers.tiny_models import write_tokenizer
from torch import Tensor
from transformers import AutoConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.records import Rollout
from distillkit.testing import make_context
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError, require_supported
from distillkit_builtin.local.inference.forward_choice import choose_backbone
from distillkit_builtin.local.inference.generator import generator_for
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model_files.model_config import context_length, declared_text_config
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.local.training.policy import Policy

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"attention_bias": True, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "llama, yarn": {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 32,
        }
    },
    "llama, biases": {"mlp_bias": True},
    "llama, a window left over": {"sliding_window": 5},
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0, "attention_bias": True},
    "gemma2": {
        "attn_logit_softcapping": 0.5, "final_logit_softcapping": 1.0, "query_pre_attn_scalar": 2, "sliding_window": 5,
    },
    "gemma3_text": {"sliding_window": 5, "query_pre_attn_scalar": 2},
    "gpt_oss": {"sliding_window": 5},
    "granite": {
        "attention_multiplier": 0.7, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 3.0,
    },
    "cohere2": {"logit_scale": 0.25, "sliding_window": 5},
    "phi3": {"partial_rotary_factor": 0.5, "sliding_window": 5},
    "stablelm": {"use_qkv_bias": True, "partial_rotary_factor": 0.5},
    "gpt2": {"scale_attn_by_inverse_layer_idx": True},
    "qwen3_moe": {"norm_topk_prob": True},
    "mixtral": {"sliding_window": 5},
}  # fmt: skip
"""What a path could overlook: each value changes what the model computes."""


def family(name: str) -> CausalLM:
    return random_causal_lm(name.partition(",")[0], **FAMILIES[name])


def items() -> list[PromptAndResponse]:
    """Of different lengths, beyond every window; three begin alike, far enough to be computed once."""
    numbers = np.random.default_rng(0)
    start = numbers.integers(5, 250, 20)
    prompts = [np.concatenate([start, numbers.integers(5, 250, n)]) for n in (1, 4, 9)]
    return [
        PromptAndResponse(token_ids(p), token_ids(numbers.integers(5, 250, r)))
        for p, r in zip(prompts, (9, 3, 6), strict=True)
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_scored_and_trained_logprobs_are_the_references(name: str) -> None:
    causal_lm = proved(family(name))
    backbone = choose_backbone(causal_lm, "auto", lambda notice: None)
    expected = torch.cat([reference(causal_lm, item) for item in items()])
    for computed in {None, backbone}:
        found, _ = score_logprobs(causal_lm, items(), computed)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    policy = Policy.full(causal_lm)
    with policy.training():
        torch.testing.assert_close(policy.logprobs(items()).detach(), expected, atol=1e-4, rtol=1e-4)
    if backbone is not None:
        policy.pack()
        with policy.training():
            torch.testing.assert_close(policy.logprobs(items()).detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("forward", ["plain", "auto"])
@pytest.mark.parametrize("name", FAMILIES)
def test_sampled_logprobs_are_the_references(name: str, forward: Any, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    causal_lm = family(name)
    backbone = choose_backbone(causal_lm, forward, lambda notice: None)
    generator = generator_for(causal_lm, backbone, HFTokenizer.load(str(tmp_path)))
    params = SamplingParams(max_tokens=9)
    requests = [SampleRequest(SampleKey("1-x", 0, i), item.prompt_ids, i, params) for i, item in enumerate(items())]
    rollouts: list[Rollout] = []
    generator.generate(requests, 2, 0, rollouts.append)
    assert len(rollouts) == 3
    for rollout in rollouts:
        expected = reference(causal_lm, PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids))
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-4, rtol=1e-4)


def wrapped(change: Callable[[Any, Tensor], Tensor]) -> CausalLM:
    """A model whose hidden states are changed; `change` gets the call's arguments too."""
    causal_lm = random_causal_lm("llama")
    forward = causal_lm.backbone.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.last_hidden_state = change(kwargs, out.last_hidden_state)
        return out

    causal_lm.backbone.forward = changed
    return causal_lm


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("beside another", lambda given, hidden: hidden + hidden.mean((0, 1))),  # mixes the batch
        ("token by token", lambda given, hidden: hidden + hidden[:, -1:]),  # looks ahead
        ("beside another", lambda given, hidden: hidden + torch.randn_like(hidden)),  # is random
        ("token by token", lambda given, hidden: hidden * (1 + 0.1 * given["use_cache"])),  # reads its cache wrongly
    ],
)
def test_a_model_that_depends_on_what_is_beside_a_sequence_is_refused(
    how: str, change: Callable[[Any, Tensor], Tensor]
) -> None:
    proved(wrapped(lambda given, hidden: hidden))
    with pytest.raises(InputError, match=rf"hidden states of a sequence {how}.* serve it over HTTP"):
        proved(wrapped(change))


def test_attention_that_ignores_a_value_of_the_config_is_found() -> None:
    causal_lm = random_causal_lm("granite", attention_multiplier=0.9)
    proved(causal_lm)
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def careless(*args: Any, scaling: float | None = None, **kwargs: Any) -> Any:
        return attend(*args, **kwargs)

    different = r"other hidden states by its attention 'sdpa' than by 'eager' .* serve it over"
    with attention_in_the_place_of("sdpa") as put_there:
        put_there(careless)
        with pytest.raises(InputError, match=different):
            proved(causal_lm)


@pytest.mark.parametrize("window", [5, 60, 128])
def test_a_cache_that_forgets_what_a_layer_reads_is_found(window: int) -> None:
    causal_lm = proved(random_causal_lm("mistral", sliding_window=200))
    causal_lm._cache_config = copy.copy(causal_lm.model.config)
    causal_lm._cache_config.sliding_window = window
    with pytest.raises(InputError, match="hidden states of a sequence token by token"):
        proved(causal_lm)


def test_a_window_that_a_config_computes_is_the_caches_too() -> None:
    """ModernBERT's decoder makes `sliding_window` of its `local_attention`: it is no value left over in a file."""
    config = AutoConfig.for_model("modernbert-decoder", local_attention=12, num_hidden_layers=2)
    assert declared_text_config(config).sliding_window == config.sliding_window == 6
    left_over = AutoConfig.for_model("llama", sliding_window=6)
    assert not hasattr(declared_text_config(left_over), "sliding_window")


LLAMA4 = {"attention_chunk_size": 8192, "intermediate_size_mlp": 32, "num_hidden_layers": 4}
"""Its last layer scales its queries by the position, which it asks the cache for: anew at each 8,192 tokens."""


@pytest.mark.parametrize(
    ("kind", "over", "padded"),
    [
        ("llama4_text", LLAMA4, False),
        ("llama4_text", {**LLAMA4, "attn_temperature_tuning": False}, True),
        ("gemma3_text", {"sliding_window": 5}, True),
    ],
)
def test_prompts_are_not_padded_where_layers_count_the_padding(kind: str, over: dict[str, Any], padded: bool) -> None:
    assert random_causal_lm(kind, **over).batching.left_padding == padded


LONGROPE = {
    "original_max_position_embeddings": 40,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 40,
        "short_factor": [1.0] * 4, "long_factor": [9.0] * 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("over", [LONGROPE, {"index_topk": 40}], ids=["longrope", "sparse"])
def test_sequences_that_would_be_computed_in_two_ways_are_not_read(over: dict[str, Any], tmp_path: Path) -> None:
    random_model("phi3").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **over}))
    assert context_length(str(tmp_path)) == 40
    notes = LocalStudent(model=str(tmp_path), device="cpu").check(make_context()).notes
    assert "reads sequences of at most 40 tokens here" in notes[1]
    assert "sampling.max_completion_tokens" in notes[1]


def test_up_to_that_length_a_batch_changes_nothing_and_beyond_it_would() -> None:
    causal_lm = proved(random_causal_lm("phi3", **LONGROPE))
    ids = np.random.default_rng(0).integers(5, 250, 60)
    short = PromptAndResponse(token_ids(ids[:9]), token_ids(ids[9:20]))
    alone = reference(causal_lm, short)
    for length, same in ((40, True), (41, False)):
        beside = PromptAndResponse(token_ids(ids[:30]), token_ids(ids[30:length]))
        found, _ = score_logprobs(causal_lm, [short, beside])
        assert torch.allclose(found[:11], alone, atol=1e-4) == same


def test_a_model_that_cannot_be_computed_is_an_error_of_the_input() -> None:
    def fail(given: Any, hidden: Tensor) -> Tensor:
        raise AttributeError("no last_hidden_state")

    with pytest.raises(
        InputError, match="cannot be computed by the local backend: AttributeError: no last_hidden_state"
    ):
        proved(wrapped(fail))


def test_a_config_with_a_value_that_the_fast_path_does_not_know_is_not_for_it() -> None:
    causal_lm = random_causal_lm("llama")
    verified_backbone(causal_lm)
    config = copy.copy(causal_lm.model.config)
    config.__class__ = known_more(type(config))
    config.attention_slope = 0.5
    with pytest.raises(UnsupportedModelError, match="'attention_slope'"):
        require_supported(config)


def known_more(kind: type) -> type:
    """As a later version of transformers may have it."""
    return dataclass(
        type(kind.__name__, (kind,), {"__annotations__": {"attention_slope": float}, "attention_slope": 1.0})
    )
