"""A LoRA is on exactly the layers that were asked for: in training, sampling, export, and as PEFT reads it back."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from families.catalogue import FAMILIES
from helpers.model_families import LAYERED, random_model
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from builtin.local.conftest import plain_logprobs
from builtin.local.lora.named_targets import ATTENTION, MLP, attention, moved_policy, names
from distillkit.arrays import token_ids
from distillkit_builtin.local.export.export import write_weights
from distillkit_builtin.local.export.export_check import export_problem
from distillkit_builtin.local.lora.adapters import merge_adapter
from distillkit_builtin.local.lora.decoder_layers import LayerKind, linear_kinds
from distillkit_builtin.local.lora.lora import adapted_tensors
from distillkit_builtin.local.lora.lora_placement import planned_targets
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model_files.model_class import empty_model
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy

pytestmark = pytest.mark.filterwarnings("ignore")
ITEM = PromptAndResponse(token_ids([5, 9, 17, 33]), token_ids([40, 41, 42, 90, 91, 150, 151]))
LATENT = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
SHARED = names("model.layers.0.mlp", MLP) | names("model.layers.1.mlp.shared_experts", MLP)
EXPECTED: Mapping[str, set[str]] = {
    "qwen3_moe": attention("model") | names("model.layers.0.mlp", MLP),
    "mixtral": attention("model"),
    "qwen2_moe": attention("model") | {n for i in (0, 1) for n in names(f"model.layers.{i}.mlp.shared_expert", MLP)},
    "deepseek_v3": attention("model", LATENT) | SHARED,
    "glm4_moe": attention("model") | SHARED,
    "gpt_oss": attention("model"),
    "phimoe": attention("model"),
    "laguna": attention("model", (*ATTENTION, "g_proj")) | names("model.layers.0.mlp", MLP),
    "jetmoe": {f"model.layers.{i}.self_attention.kv_proj" for i in (0, 1)},
    "dbrx": {f"transformer.blocks.{i}.norm_attn_norm.attn.{n}" for i in (0, 1) for n in ("Wqkv", "out_proj")},
    "gemma3": attention("model.language_model")
    | {n for i in (0, 1) for n in names(f"model.language_model.layers.{i}.mlp", MLP)},
}
MIXTURES = [kind for kind in LAYERED if kind not in ("dbrx", "gemma3")]


@torch.no_grad()
def logprobs(causal_lm: CausalLM) -> torch.Tensor:
    return causal_lm.response_logprobs([ITEM])


def on_linears(model: torch.nn.Module) -> set[str]:
    return {name.removesuffix(".weight") for name in adapted_tensors(model) if "experts.gate_up" not in name}


@pytest.mark.parametrize("kind", LAYERED)
def test_a_lora_is_on_the_linear_layers_of_the_text_decoder(kind: str) -> None:
    policy = moved_policy(random_model(kind, **LAYERED[kind]))
    assert on_linears(policy.causal_lm.model) == EXPECTED[kind]
    policy.logprobs([ITEM]).sum().backward()
    assert all(parameter.grad is not None for parameter in policy.trained.values())


@pytest.mark.parametrize(("kind", "experts"), [*((k, False) for k in LAYERED), *((k, True) for k in MIXTURES)])
def test_it_is_the_same_trained_sampled_exported_and_merged(kind: str, experts: bool, tmp_path: Path) -> None:
    model = random_model(kind, **LAYERED[kind])
    model.save_pretrained(tmp_path / "base")
    policy = moved_policy(model, experts=experts)
    expected = logprobs(policy.causal_lm)
    with policy.causal_lm.without_adapter():
        assert not torch.allclose(logprobs(policy.causal_lm), expected, atol=0.1)
    sampling = SamplingCopy(policy.causal_lm)
    sampling.refresh()
    torch.testing.assert_close(logprobs(sampling.causal_lm), expected, atol=1e-4, rtol=1e-4)
    assert not adapted_tensors(sampling.causal_lm.model)  # a sampled token costs what one of the base does
    path = write_weights(policy, tmp_path)
    assert export_problem(policy, path, None) is None
    read = type(model).from_pretrained(tmp_path / "base", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(read, path).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain_logprobs(loaded, ITEM), expected, atol=1e-4, rtol=1e-4)
        merged = merge_adapter(type(model).from_pretrained(tmp_path / "base", dtype=torch.float32).eval(), path)
        torch.testing.assert_close(plain_logprobs(merged, ITEM), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen3_omni_moe_thinker", "qwen2_5_omni_thinker"])
def test_towers_with_layers_of_the_same_names_get_no_lora(family: str) -> None:
    config = FAMILIES[family].config()
    assert any(name.endswith("q_proj") for name, _ in empty_model(config).named_modules() if "audio_tower" in name)
    targets = planned_targets(config)  # which raises where PEFT puts it on others
    assert targets.linears
    assert all(name.startswith("model.language_model.") for name in targets.linears)


@pytest.mark.parametrize("kind", ["glm4_moe", "gemma3", "laguna", "llama"])
def test_the_exported_config_is_short_and_has_what_vllm_asks_for(kind: str, tmp_path: Path) -> None:
    path = write_weights(moved_policy(random_model(kind, **LAYERED.get(kind, {}))), tmp_path)
    config = json.loads((path / "adapter_config.json").read_text())
    expected = {
        "glm4_moe": (sorted(ATTENTION), sorted(f"{name}.weight" for name in MLP)),
        "gemma3": (rf"model\.language_model\.(.*\.)?({'|'.join(sorted(ATTENTION + MLP))})", None),
        "llama": (sorted(ATTENTION + MLP), None),
    }
    if kind in expected:
        assert (config["target_modules"], config["target_parameters"] or None) == expected[kind]
    with safe_open(path / "adapter_model.safetensors", "pt") as stored:
        layers = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in stored.keys()}  # noqa: SIM118
    assert layers == EXPECTED.get(kind, layers)


@pytest.mark.parametrize("experts", [False, True])
def test_names_that_peft_rewrites_can_be_chosen_alone(experts: bool, tmp_path: Path) -> None:
    model = random_model("deepseek_v3", **LAYERED["deepseek_v3"])
    model.save_pretrained(tmp_path / "base")
    policy = moved_policy(model, target_modules=("shared_experts.down_proj",), experts=experts)
    linears = {name for name in adapted_tensors(policy.causal_lm.model) if name.endswith(".weight")}
    assert linears == {"model.layers.1.mlp.shared_experts.down_proj.weight"}
    assert len(adapted_tensors(policy.causal_lm.model)) == (3 if experts else 1)
    path = write_weights(policy, tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(read, path).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain_logprobs(loaded, ITEM), logprobs(policy.causal_lm), atol=1e-4, rtol=1e-4)


def test_dropout_is_before_every_linear_layers_lora_in_training_alone() -> None:
    policy = moved_policy(random_model("glm4_moe", **LAYERED["glm4_moe"]), dropout=0.5)
    calm = policy.logprobs([ITEM])
    with policy.training():
        assert not torch.allclose(policy.logprobs([ITEM]), calm, atol=1e-3)
    torch.testing.assert_close(policy.logprobs([ITEM]), calm)
    layers = [m for m in policy.causal_lm.model.modules() if hasattr(m, "lora_dropout")]
    assert len(layers) == len(EXPECTED["glm4_moe"])
    assert all(isinstance(layer.lora_dropout["default"], torch.nn.Dropout) for layer in layers)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "exaone4_5", "minimax_m3_vl"])
def test_a_vision_tower_is_called_so_whatever_it_says_that_it_reads(family: str) -> None:
    frozen = planned_targets(FAMILIES[family].config()).frozen
    assert [name for name in frozen if name not in ("experts", "router")] == ["vision tower"]


def test_a_name_that_a_tower_shares_is_the_text_decoders() -> None:
    found = planned_targets(random_model("gemma3", **LAYERED["gemma3"]).config, ["q_proj"])
    assert set(found.linears) == {f"model.language_model.layers.{i}.self_attn.q_proj" for i in (0, 1)}


@pytest.mark.parametrize("kind", ["afmoe", "longcat_flash", "zaya", "llama4_text"])
def test_routers_are_found_by_what_they_give(kind: str) -> None:
    model = empty_model(AutoConfig.for_model(kind, num_hidden_layers=4))
    kinds = linear_kinds(model)
    found = {".".join(name.split(".")[-2:]) for name, found in kinds.items() if found == LayerKind.ROUTER}
    assert (
        found
        == {
            "afmoe": {"router.gate"},
            "longcat_flash": {"router.classifier"},
            "zaya": {"gate.down_proj", "router_mlp.fc1", "router_mlp.fc2", "router_mlp.out_proj"},
            "llama4_text": {"feed_forward.router"},
        }[kind]
    )
