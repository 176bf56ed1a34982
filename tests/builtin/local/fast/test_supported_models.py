"""What a config says of the parts that a model is made of."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from helpers.fast_families import FAST_FAMILIES, fast_family
from helpers.tiny_wrappers import wrapper_config
from transformers import AutoConfig, PreTrainedConfig

from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fast import self_check
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import (
    FAMILIES,
    UnsupportedModelError,
    require_supported,
    rotary_kinds,
    windows,
)
from distillkit_builtin.local.inference.forward_choice import choose_backbone
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model_files.model_class import auto_class


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - {"gemma2"}))
def test_every_field_of_a_familys_config_is_accounted_for(kind: str) -> None:
    require_supported(AutoConfig.for_model(kind))


DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
DEFAULT = {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        ("gemma2", {}, "its attn_logit_softcapping is 50.0"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "its use_bidirectional_attention is True"),
        ("olmoe", {"clip_qkv": 8.0}, "its clip_qkv is 8.0"),
        ("gemma3_text", {"hidden_activation": "relu"}, "its activation is 'relu', none of"),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": DYNAMIC, "sliding_attention": DEFAULT}},
            "its rotary embedding is of type 'dynamic'",
        ),
        ("phi3", {"rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.75}}, "turns a part of each head alone"),
        ("gpt_oss", {}, "model type 'gpt_oss' is none of"),
    ],
)
def test_what_is_computed_in_another_way_is_refused(kind: str, values: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        require_supported(AutoConfig.for_model(kind, **values))


def test_a_field_that_another_family_has_is_not_known_of_this_one() -> None:
    class Llama(type(AutoConfig.for_model("granite"))):  # type: ignore[misc]
        model_type = "llama"

    with pytest.raises(UnsupportedModelError, match="what 'attention_multiplier' in its config does is not known here"):
        require_supported(Llama())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", (None, None, None)),
        ("qwen3", (None, None, None)),
        ("mistral", (12, 12, 12)),
        ("ministral", (None, 12, 12)),
        ("gemma3_text", (None, 12, 12)),
    ],
)
def test_windows_of_each_layer(kind: str, expected: tuple[int | None, ...]) -> None:
    assert windows(FAST_FAMILIES[kind]) == expected


def test_kinds_of_rotary_embeddings() -> None:
    def kinds(config: PreTrainedConfig) -> tuple[str | None, ...]:
        return rotary_kinds(config)

    assert kinds(FAST_FAMILIES["ministral"]) == (None,)
    assert kinds(FAST_FAMILIES["gemma3_text"]) == ("full_attention", "sliding_attention")
    assert kinds(FAST_FAMILIES["llama"]) == (None,)


def test_experts_with_other_weights_are_refused() -> None:
    causal_lm = fast_family("qwen3_moe")
    experts = causal_lm.backbone.get_submodule("layers.0.mlp.experts")
    experts.register_parameter("down_proj_bias", torch.nn.Parameter(torch.zeros(6, 32)))
    with pytest.raises(UnsupportedModelError, match="its experts have other weights"):
        verified_backbone(causal_lm)


def test_a_layer_with_other_parts_is_refused() -> None:
    causal_lm = fast_family("llama")
    del causal_lm.backbone.get_submodule("layers.1.self_attn").o_proj
    with pytest.raises(UnsupportedModelError, match=r"made of other parts than its config says: .*o_proj"):
        verified_backbone(causal_lm)


def test_a_text_decoder_whose_rotary_embeddings_read_pictures_is_a_reason() -> None:
    model = auto_class(config := wrapper_config("qwen2_5_vl")).from_config(config)
    causal_lm = CausalLM(model.eval(), Device(torch.device("cpu")), torch.float32)
    said: list[str] = []
    assert choose_backbone(causal_lm, "auto", said.append) is None
    assert said[0].startswith("Qwen2_5_VLForConditionalGeneration is computed by transformers' own forward: model type")


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, AssertionError])
def test_whatever_the_models_code_raises_is_a_reason(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*rest: object) -> None:
        raise error("odd")

    monkeypatch.setattr(self_check, "_compare", fail)
    with pytest.raises(UnsupportedModelError, match=rf"cannot be run here: {error.__name__}: .?odd"):
        verified_backbone(fast_family("llama"))


def test_a_device_that_cannot_run_it_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*rest: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    monkeypatch.setattr(self_check, "_compare", fail)
    with pytest.raises(UnsupportedModelError, match=r"cannot be run here: RuntimeError: .* is capturing$"):
        verified_backbone(fast_family("llama"))


def test_windows_of_the_config_are_what_they_were_after_the_check() -> None:
    causal_lm = fast_family("gemma3_text")
    backbone = verified_backbone(causal_lm)
    assert backbone.windows == windows(causal_lm.model.config) == (None, 12, 12)
