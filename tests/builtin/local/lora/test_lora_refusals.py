"""Names of layers that a LoRA cannot be put on are refused, in one sentence."""

import pytest
from helpers.model_families import LAYERED, random_model
from transformers import AutoConfig

from builtin.local.lora.named_targets import ATTENTION, MLP
from distillkit.errors import InputError
from distillkit_builtin.local.lora.lora_placement import planned_targets

pytestmark = pytest.mark.filterwarnings("ignore")
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


@pytest.mark.parametrize(
    ("kind", "message"), [("dbrx", "are not kept in tensors"), ("gemma3", "is no mixture of experts; take false")]
)
def test_experts_that_cannot_be_adapted_are_refused(kind: str, message: str) -> None:
    with pytest.raises(InputError, match=f"student.experts: .*{message}"):
        planned_targets(random_model(kind, **LAYERED[kind]).config, experts=True)
