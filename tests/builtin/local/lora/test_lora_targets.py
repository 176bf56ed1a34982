"""A LoRA is on exactly the layers that were asked for: in training, sampling, export, and as PEFT reads it back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from families.catalogue import FAMILIES
from helpers.model_families import LAYERED, random_model
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.export.export import write_weights
from distillkit_builtin.local.export.export_check import export_problem
from distillkit_builtin.local.lora.adapters import merge_adapter
from distillkit_builtin.local.lora.decoder_layers import LayerKind, linear_kinds
from distillkit_builtin.local.lora.lora import adapted_tensors
from distillkit_builtin.local.lora.lora_placement import planned_targets
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.footprint import model_structure
from distillkit_builtin.local.model_files.model_class import empty_model
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
ITEM = PromptAndResponse(token_ids([5, 9, 17, 33]), token_ids([40, 41, 42, 90, 91, 150, 151]))


def names(layer: str, parts: tuple[str, ...]) -> set[str]:
    return {f"{layer}.{part}" for part in parts}


def attention(decoder: str, parts: tuple[str, ...] = ATTENTION) -> set[str]:
    return {name for i in (0, 1) for name in names(f"{decoder}.layers.{i}.self_attn", parts)}


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


def causal_lm_of(model: PreTrainedModel) -> CausalLM:
    return CausalLM(model, Device(torch.device("cpu")), torch.float32)


def moved_policy(model: PreTrainedModel, **options: Any) -> Policy:
    """With a LoRA of rank 4 that does something."""
    policy = Policy.lora(causal_lm_of(model), 4, 8, options.pop("dropout", 0.0), 0, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.1, generator=generator))
    return policy


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


BAD = [
    ("qwen3_moe", ["q_porj"], r"no linear layer of Qwen3MoeForCausalLM is called 'q_porj'; did you mean q_proj"),
    ("qwen3_moe", ["zzz"], r"is called 'zzz'; it has q_proj, .*down_proj; experts are adapted by student.experts"),
    ("qwen2_moe", ["shared_expert_gate"], r"'shared_expert_gate' names router, which a LoRA is not put on here"),
    ("qwen3_moe", ["lm_head"], r"'lm_head' names head, which a LoRA is not put on"),
    ("qwen3_moe", ["experts.gate_up_proj"], r"no linear layer .* \(it is .*; experts are adapted by student.experts"),
    ("gemma3", ["fc1"], r"'fc1' names layers outside of the text decoder"),
    ("gemma3", ["w1", "fc9"], r"is called 'w1' or 'fc9'; it has q_proj, k_proj, v_proj, o_proj, .*down_proj$"),
    ("qwen3_moe", ["all-linear"], r"is called 'all-linear'; leave student.target_modules out .null.: then"),
    ("laguna", ["shared_experts.up_proj"], r"PEFT would read their tensors back under other names"),
]


@pytest.mark.parametrize(("kind", "target_modules", "message"), BAD)
def test_names_of_nothing_or_of_what_stays_frozen_are_refused(
    kind: str, target_modules: list[str], message: str
) -> None:
    config = random_model(kind, **LAYERED[kind]).config
    with pytest.raises(InputError, match=message):
        planned_targets(config, target_modules)


def test_all_names_that_a_mixture_does_not_have_are_said_in_one_sentence() -> None:
    config = random_model("qwen3_moe", **{**LAYERED["qwen3_moe"], "mlp_only_layers": []}).config
    with pytest.raises(InputError) as caught:
        planned_targets(config, [*ATTENTION, *MLP])
    assert str(caught.value) == (
        "student.target_modules: no linear layer of Qwen3MoeForCausalLM is called 'gate_proj', 'up_proj' or 'down_proj'"
        " (it is model.layers.0.mlp.experts.down_proj); it has q_proj, k_proj, v_proj, o_proj; experts are adapted by "
        "student.experts: true, and routers are not"
    )


@pytest.mark.parametrize("named", [["out_proj"], ["in_proj", "out_proj"], ["mixer.out_proj"]])
def test_a_named_layer_that_peft_refuses_is_refused_and_not_left_out(named: list[str]) -> None:
    config = AutoConfig.for_model("mamba2", num_hidden_layers=2, hidden_size=64, num_heads=2, vocab_size=99)
    with pytest.raises(InputError, match=r"out_proj' .*PEFT refuses .* of this type \(mamba2\); choose among in_proj$"):
        planned_targets(config, named)


def test_layers_are_offered_only_where_a_lora_can_be_put_on_them() -> None:
    config = AutoConfig.for_model("mamba", num_hidden_layers=2, hidden_size=64, vocab_size=99)
    with pytest.raises(InputError, match=r"is called 'zzz'; it has in_proj, x_proj$"):  # not dt_proj, not out_proj
        planned_targets(config, ["zzz"])


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "exaone4_5", "minimax_m3_vl"])
def test_a_vision_tower_is_called_so_whatever_it_says_that_it_reads(family: str) -> None:
    frozen = planned_targets(FAMILIES[family].config()).frozen
    assert [name for name in frozen if name not in ("experts", "router")] == ["vision tower"]


def test_a_name_that_a_tower_shares_is_the_text_decoders() -> None:
    found = planned_targets(random_model("gemma3", **LAYERED["gemma3"]).config, ["q_proj"])
    assert set(found.linears) == {f"model.language_model.layers.{i}.self_attn.q_proj" for i in (0, 1)}


@pytest.mark.parametrize(
    ("kind", "message"), [("dbrx", "are not kept in tensors"), ("gemma3", "is no mixture of experts; take false")]
)
def test_experts_that_cannot_be_adapted_are_refused(kind: str, message: str) -> None:
    with pytest.raises(InputError, match=f"student.experts: .*{message}"):
        planned_targets(random_model(kind, **LAYERED[kind]).config, experts=True)


EVERY = "(q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj)"
SAID = {
    "mixtral": "the LoRA is on 8 linear layers (q_proj, k_proj, v_proj, o_proj), 1,792 numbers are trained; "
    "experts and router are frozen",
    "gemma3": f"the LoRA is on 14 linear layers {EVERY}, 3,712 numbers are trained; vision tower is frozen",
    "llama": f"the LoRA is on 14 linear layers {EVERY}, 3,712 numbers are trained",
}


@pytest.mark.parametrize("kind", SAID)
def test_what_a_lora_is_on_is_said_in_one_line(kind: str) -> None:
    policy = moved_policy(random_model(kind, **LAYERED.get(kind, {})))
    said = planned_targets(policy.causal_lm.model.config).describe(4)
    assert said == SAID[kind]
    assert f" {sum(p.numel() for p in policy.trained.values()):,} numbers" in said


def test_layers_that_peft_loses_or_refuses_are_said_to_be_left_out() -> None:
    laguna = planned_targets(random_model("laguna", **LAYERED["laguna"]).config).describe(4)
    assert (
        "left out: mlp.shared_experts.down_proj, mlp.shared_experts.gate_proj and mlp.shared_experts.up_proj" in laguna
    )
    mamba = planned_targets(
        AutoConfig.for_model("mamba2", num_hidden_layers=2, hidden_size=64, num_heads=2, vocab_size=99)
    )
    assert mamba.describe(4).endswith("left out: mixer.out_proj, as PEFT refuses them in models of this type")
    assert {name.rpartition(".")[2] for name in mamba.linears} == {"in_proj"}


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


def large_mixture(layers: int) -> Any:
    """The config of Qwen3-30B-A3B, with so many layers."""
    return AutoConfig.for_model(
        "qwen3_moe", num_hidden_layers=layers, hidden_size=2048, num_attention_heads=32, num_key_value_heads=4,
        head_dim=128, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, vocab_size=151936,
    )  # fmt: skip


def test_figures_of_a_large_mixture_are_those_of_its_layers(tmp_path: Path) -> None:
    size = planned_targets(large_mixture(48)).size(16)
    per_layer = (2048 + 4096) * 2 + (2048 + 512) * 2
    assert size.trained == 16 * 48 * per_layer == 13_369_344
    large_mixture(48).save_pretrained(tmp_path)
    structure = model_structure(str(tmp_path))
    assert (16 * structure.linear_ends, structure.linear_parameters) == (size.trained, size.linear_weights)


def test_figures_of_adapted_experts_are_those_of_all_of_them() -> None:
    base, both = (planned_targets(large_mixture(2), experts=experts).size(16) for experts in (False, True))
    assert both.trained - base.trained == 16 * 2 * 128 * (2048 + 1536 + 768 + 2048)
    assert both.expert_weights == 2 * 128 * 3 * 2048 * 768
    assert base.expert_weights == 0
