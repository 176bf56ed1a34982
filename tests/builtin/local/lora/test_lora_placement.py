"""What a LoRA is on is said in one line, with its figures."""

from pathlib import Path
from typing import Any

import pytest
from helpers.model_families import LAYERED, random_model
from transformers import AutoConfig

from builtin.local.lora.named_targets import moved_policy
from distillkit_builtin.local.lora.lora_placement import planned_targets
from distillkit_builtin.local.model.footprint import model_structure

pytestmark = pytest.mark.filterwarnings("ignore")
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
