"""No layer gets a LoRA that trains nothing: what the model reads past the layer, or makes only choices of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from families.catalogue import FAMILIES
from families.tiny import tiny_model
from helpers.model_families import LAYERED, random_model
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.export.export import write_weights
from distillkit_builtin.local.export.export_check import export_problem
from distillkit_builtin.local.lora.idle_layers import NO_GRADIENT, READ_PAST, idle_layers
from distillkit_builtin.local.lora.lora_placement import planned_targets
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.training.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore")
TEXT = PromptAndResponse(token_ids(range(3, 60)), token_ids(range(60, 123)))
"""Longer than the windows that the small models sum up."""


def lora(model: PreTrainedModel, dropout: float = 0.0, **layers: Any) -> Policy:
    return Policy.lora(CausalLM(model, Device(torch.device("cpu")), torch.float32), 4, 8, dropout, 0, **layers)


INDEXER = "self_attn.compressor.indexer."
IDLE: Mapping[str, tuple[set[str], str]] = {
    "mamba": ({"mixer.dt_proj"}, READ_PAST),
    "jamba": ({"mamba.dt_proj"}, READ_PAST),
    "deepseek_v4": (
        {INDEXER + name for name in ("gate_proj", "kv_proj", "q_b_proj", "scorer.weights_proj")},
        NO_GRADIENT,
    ),
    "minimax_m3_vl_text": ({"self_attn.indexer.q_proj", "self_attn.indexer.k_proj"}, NO_GRADIENT),
}


@pytest.mark.parametrize("kind", IDLE)
def test_layers_that_no_gradient_comes_to_are_left_out_and_all_others_are_trained(kind: str) -> None:
    names, why = IDLE[kind]
    targets = planned_targets(FAMILIES[kind].config())
    assert dict(targets.left_out).items() >= dict.fromkeys(names, why).items()
    policy = lora(tiny_model(FAMILIES[kind]))
    assert targets.size(4).trained == sum(parameter.numel() for parameter in policy.trained.values())
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    policy.logprobs([TEXT]).sum().backward()
    still = [name for name, p in policy.trained.items() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "gpt_oss", "qwen3_next", "gemma3n_text"])
def test_where_all_layers_are_trained_none_is_left_out_and_the_config_stays(kind: str) -> None:
    config = FAMILIES[kind].config()
    before, attention = config.to_json_string(use_diff=False), config._attn_implementation
    assert idle_layers(config) == {}
    assert (config.to_json_string(use_diff=False), config._attn_implementation) == (before, attention)


@pytest.mark.parametrize(("kind", "named"), [("mamba", "dt_proj"), ("deepseek_v4", "indexer.kv_proj")])
def test_naming_such_a_layer_is_refused(kind: str, named: str) -> None:
    with pytest.raises(InputError, match=r"student.target_modules: .*a LoRA there would not be trained; name others"):
        planned_targets(FAMILIES[kind].config(), [named])


def test_layers_of_which_others_are_trained_are_counted() -> None:
    config = FAMILIES["mllama"].config()
    said = planned_targets(config).describe(4)
    layers = config.get_text_config().num_hidden_layers
    assert f"mlp.down_proj in 1 of {layers} layers" in said
    assert "cross_attn.q_proj," in said


def dbrx() -> PreTrainedModel:
    return random_model("dbrx", **LAYERED["dbrx"])


def test_a_model_that_cannot_be_computed_without_data_is_computed_as_it_is_opened() -> None:
    assert idle_layers(dbrx().config) is None
    assert lora(dbrx()).trained
    model = dbrx()
    attention = model.get_submodule("transformer.blocks.1.norm_attn_norm.attn")
    attention.register_forward_hook(lambda layer, inputs, given: (given[0].detach(), *given[1:]))
    with pytest.raises(InputError, match=r"blocks\.1\.norm_attn_norm\.attn\.Wqkv, .*out_proj: no gradient comes back"):
        lora(model)
    lora(dbrx(), target_modules=("transformer.blocks.0.norm_attn_norm.attn.Wqkv",))


def test_an_adapter_on_such_a_layer_is_not_trained_on(tmp_path: Path) -> None:
    model = tiny_model(FAMILIES["mamba"])
    config = LoraConfig(r=4, target_modules=["in_proj", "dt_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path)
    again = CausalLM(tiny_model(FAMILIES["mamba"]), Device(torch.device("cpu")), torch.float32)
    with pytest.raises(InputError, match=r"is also on backbone.layers.0.mixer.dt_proj, .*: the model reads the weight"):
        Policy.lora_from(again, tmp_path, 0.0)


def test_a_large_config_is_read_without_its_weights() -> None:
    config: PreTrainedConfig = AutoConfig.for_model(
        "mamba", num_hidden_layers=3, hidden_size=16384, vocab_size=1_000_000
    )
    assert set(idle_layers(config) or {}) == {f"backbone.layers.{i}.mixer.dt_proj" for i in range(3)}


@pytest.mark.parametrize("kind", ["qwen3_moe", "glm4_moe", "deepseek_v3", "llama"])
def test_an_adapter_trained_with_dropout_is_read_by_peft_and_trained_on(kind: str, tmp_path: Path) -> None:
    model = random_model(kind, **LAYERED.get(kind, {}))
    model.save_pretrained(tmp_path / "base")
    policy = lora(model, dropout=0.5)
    path = write_weights(policy, tmp_path)
    assert export_problem(policy, path, None) is None
    PeftModel.from_pretrained(type(model).from_pretrained(tmp_path / "base"), path)
    base = type(model).from_pretrained(tmp_path / "base", dtype=torch.float32).requires_grad_(False)
    again = Policy.lora_from(CausalLM(base, Device(torch.device("cpu")), torch.float32), path, 0.25)
    rates = [m.lora_dropout["default"].p for m in again.causal_lm.model.modules() if hasattr(m, "lora_dropout")]
    assert len(rates) * 2 == len(again.trained)
    assert set(rates) == {0.25}
