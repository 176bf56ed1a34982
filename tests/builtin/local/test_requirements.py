import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families.catalogue import FAMILIES
from helpers import tiny_adapters, tiny_models
from helpers.model_families import random_causal_lm
from helpers.recurrent_families import RECURRENT
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    RoFormerConfig,
    T5Config,
)

from distillkit.errors import InputError
from distillkit.testing import make_context, make_teacher
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.footprint import footprint, model_structure
from distillkit_builtin.local.requirements import quieten
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.local.training.policy import Policy

Written = Callable[[PreTrainedConfig], str]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A directory with the config and no weights."""

    def write(config: PreTrainedConfig) -> str:
        folder = tmp_path / config.model_type
        config.save_pretrained(folder)
        return str(folder)

    return write


@pytest.mark.parametrize("family", ["qwen3_next", "lfm2", "falcon_h1", "mamba", "jamba", "minimax"])
def test_recurrent_models_are_checked_as_others_are(family: str, written: Written) -> None:
    source = written(AutoConfig.for_model(family, **tiny_models.SMALL, **RECURRENT[family]))
    assert model_structure(source).parameters > 0


@pytest.mark.parametrize("family", ["rwkv", "xlstm", "recurrent_gemma", "openai-gpt", "xlnet", "xlm"])
def test_models_that_keep_what_they_have_read_in_no_cache_are_refused_by_student_and_scorer(
    family: str, written: Written
) -> None:
    config = AutoConfig.for_model(family, vocab_size=259)
    if family == "xlm":
        config.causal = True
    source = written(config)
    scorer = LocalScorer(device="cpu").bind(replace(make_teacher(), model=source))
    for plugin in (LocalStudent(model=source, device="cpu"), scorer):
        with pytest.raises(InputError, match=r"takes no cache of transformers .* serve it over HTTP instead"):
            plugin.check(make_context())


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("blt", "BltForCausalLM is made of several models with layers of their own"),
        ("unlimited_ocr", r"forgets what it has sampled, and nothing of its prompt \(reference_sliding_attention\)"),
        ("paligemma", "reads in both directions"),
    ],
)
def test_models_whose_logprobs_no_cache_can_give_are_refused(family: str, why: str, written: Written) -> None:
    source = written(FAMILIES[family].config())
    with pytest.raises(InputError, match=why) as caught:
        LocalStudent(model=source, device="cpu").check(make_context())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["qwen3_next", "lfm2", "falcon_h1", "mamba", "zaya", "llama"])
def test_what_recurrent_layers_keep_of_a_sequence_is_counted(family: str, written: Written) -> None:
    causal_lm = random_causal_lm(family, **RECURRENT.get(family, {}))
    cache = causal_lm.new_cache()
    causal_lm.hidden_states(torch.ones(1, 9, dtype=torch.long), cache)
    states = [
        state.numel()
        for layer in cache.layers
        for name in ("conv_states", "recurrent_states")
        for state in (getattr(layer, name, None) or {}).values()
        if isinstance(state, torch.Tensor)
    ]
    assert model_structure(written(causal_lm.model.config)).state == sum(states)
    assert bool(states) == (family != "llama")


def test_only_layers_that_keep_keys_and_values_are_counted_for_them(written: Written) -> None:
    small = {**tiny_models.SMALL, "num_hidden_layers": 4}
    hybrid = AutoConfig.for_model("lfm2", **small, layer_types=["conv", "conv", "full_attention", "conv"])
    assert model_structure(written(hybrid)).cached == 2 * 2 * 8
    assert model_structure(written(LlamaConfig(**small))).cached == 4 * 2 * 2 * 8


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_models_that_attend_alone_are_accepted(family: str, written: Written) -> None:
    model_structure(written(tiny_models.FAMILIES[family]))


ENCODER: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.mark.parametrize("config", [BertConfig(**ENCODER), RoFormerConfig(**ENCODER)])
def test_encoders_are_refused_though_transformers_has_a_head_for_them(
    config: PreTrainedConfig, written: Written
) -> None:
    with pytest.raises(InputError, match="reads in both directions"):
        LocalStudent(model=written(config), device="cpu").check(make_context())
    config.is_decoder = True
    model_structure(written(config))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            T5Config(d_model=32),
            "it is an encoder-decoder \\(t5\\), which reads a source text by one part and writes by another",
        ),
        (LlamaConfig(**{**tiny_models.SMALL, "hidden_act": "nosuch"}), "no model can be built from its config.json"),
    ],
    ids=["another kind", "nonsense"],
)
def test_what_no_text_model_can_be_made_of_is_refused_in_one_line(
    config: PreTrainedConfig, message: str, written: Written
) -> None:
    source = written(config)
    scorer = LocalScorer(device="cpu").bind(replace(make_teacher(), model=source))
    for plugin in (LocalStudent(model=source, device="cpu"), scorer):
        with pytest.raises(InputError, match=message) as caught:
            plugin.check(make_context())
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


QUANTIZED = {"quant_method": "bitsandbytes", "load_in_4bit": True}


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "quark"])
def test_what_cannot_be_trained_is_said_before_packages_are_asked_for(
    method: str, tiny_model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "quantized"
    shutil.copytree(tiny_model, folder)
    tiny_adapters.change_config(folder, file="config.json", quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(
        InputError, match=rf"lora_rank: 0 trains all weights, and those of .* are quantized \({method}\)"
    ):
        LocalStudent(model=str(folder), device="cpu", lora_rank=0).check(make_context())


def test_quantized_weights_cannot_all_be_trained_nor_take_in_an_adapter(tiny_model: str, tmp_path: Path) -> None:
    folder = tmp_path / "quantized"
    shutil.copytree(tiny_model, folder)
    tiny_adapters.change_config(folder, file="config.json", quantization_config=QUANTIZED)
    with pytest.raises(InputError, match=r"lora_rank: 0 trains all weights, and those of .* are quantized"):
        LocalStudent(model=str(folder), device="cpu", lora_rank=0).check(make_context())
    adapter = tiny_adapters.write_adapter(tmp_path / "adapter", tiny_model, base_name=str(folder))
    with pytest.raises(InputError, match=r"cannot be merged into .*, whose weights are quantized: that would round it"):
        LocalStudent(model=str(adapter), device="cpu").check(make_context())


def test_quantized_weights_whose_package_is_missing_are_refused(tiny_model: str, tmp_path: Path) -> None:
    folder = tmp_path / "quantized"
    shutil.copytree(tiny_model, folder)
    tiny_adapters.change_config(folder, file="config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(InputError, match=r"is quantized \(gptq\), .*: pip install optimum gptqmodel"):
        LocalStudent(model=str(folder), device="cpu").check(make_context())


@pytest.mark.parametrize("config", [LlamaConfig(**tiny_models.SMALL), GPT2Config(n_embd=32, n_layer=2, n_head=4)])
def test_the_bytes_of_a_student_are_those_that_it_holds(config: PreTrainedConfig, written: Written) -> None:
    source = written(config)
    size = footprint(source, torch.device("cpu"), "bfloat16")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    causal_lm = CausalLM(model, Device(torch.device("meta")), torch.bfloat16)
    before = {id(parameter) for parameter in model.parameters()}
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    copied = [p for p in SamplingCopy(causal_lm).causal_lm.model.parameters() if id(p) not in before]
    trained = sum(parameter.numel() for parameter in policy.trained.values())
    assert size.weight_bytes == sum(p.nbytes for p in model.parameters() if id(p) in before)
    assert size.training_bytes(4) == sum(p.nbytes for p in copied) + 16 * trained
    assert size.training_bytes(4, samples=False) == 16 * trained
    assert size.training_bytes(0, samples=False) == model_structure(source).parameters * 16
    assert size.training_bytes(0) == model_structure(source).parameters * (16 + 2)


def test_a_model_that_several_use_is_counted_once(tiny_model: str) -> None:
    size, context = footprint(tiny_model, torch.device("cpu"), "float32"), make_context("student")
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32"}

    def held(user: str, plugin: LocalStudent | LocalScorer) -> int:
        report = plugin.memory(replace(context, user=user))
        assert report is not None
        parts = [use for use in report.uses if use.part == "weights" and "libraries" not in use.what]
        return sum(use.size_bytes for use in parts)

    def teacher(**change: str) -> LocalScorer:
        return LocalScorer(**{**options, **change}).bind(replace(make_teacher(), model=tiny_model))

    assert held("all weights", LocalStudent(model=tiny_model, lora_rank=0, **options)) == size.training_bytes(0)
    lora = LocalStudent(model=tiny_model, lora_rank=4, **options)
    assert held("student", lora) == size.training_bytes(4) + size.weight_bytes
    assert held("student", lora) == size.training_bytes(4) + size.weight_bytes  # whoever was first stays it
    assert held("teachers.a.scorer", teacher()) == 0
    assert held("teachers.b.scorer", teacher(dtype="bfloat16")) == size.weight_bytes // 2


@pytest.mark.parametrize(("given", "found"), [(logging.NOTSET, logging.ERROR), (logging.DEBUG, logging.DEBUG)])
def test_a_warning_of_no_use_is_not_shown_unless_the_user_asked_for_it(given: int, found: int) -> None:
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    try:
        logger.setLevel(given)
        quieten()
        assert logger.level == found
    finally:
        logger.setLevel(before)
