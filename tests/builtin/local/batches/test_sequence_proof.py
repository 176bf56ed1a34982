"""A sequence's logprobs are its own, on every path: a model is proved before it is used, and real families hold."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.explicit_attention import attention_in_the_place_of
from helpers.model_families import random_causal_lm
from helpers.own_forward import reference
from helpers.tiny_models import write_tokenizer
from torch import Tensor
from transformers import AutoConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from builtin.local.batches.proved_items import FAMILIES, family, items
from distillkit.errors import InputError
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError, require_supported
from distillkit_builtin.local.inference.forward_choice import choose_backbone
from distillkit_builtin.local.inference.generator import generator_for
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model_files.model_config import declared_text_config
from distillkit_builtin.local.training.policy import Policy


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
