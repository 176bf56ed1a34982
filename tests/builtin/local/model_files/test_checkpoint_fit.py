"""Weights that are not those of the model that the config describes: refused by `check` and by loading."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from helpers.model_families import random_model
from helpers.tiny_adapters import change_tensors
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.core_model_loading import WeightConverter

from builtin.local.model_files.model_folders import WEIGHTS, check, set_config
from distillkit.errors import InputError
from distillkit_builtin.local.model.load_weights import load_weights
from distillkit_builtin.local.model_files.checkpoint_fit import load_on_meta, require_weights
from distillkit_builtin.local.model_files.weight_files import model_files, stored_tensors
from distillkit_builtin.model_source import resolve_model

Tensors = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ({"num_hidden_layers": 3}, None, r"9 tensors are missing \(model.layers.2"),
        ({"num_hidden_layers": 1}, None, r"9 tensors fit nothing in it \(model.layers.1"),
        (
            {"intermediate_size": 64},
            None,
            r"6 tensors have other shapes .*down_proj.weight: \[32, 48\] in the file, \[32, 64\]",
        ),
        ({"tie_word_embeddings": False}, None, r"1 tensors are missing \(lm_head.weight\)"),
        ({"model_type": "qwen2"}, None, r"are missing \(model.layers.0.self_attn.k_proj.bias"),
        ({"model_type": "gpt2"}, None, "not those of a GPT2LMHeadModel"),
        ({}, lambda t: {**t, "model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}, r"fit nothing .*q_proj.bias"),
        ({}, lambda t: {**t, "model.layers.0.self_attn.q_norm.weight": torch.ones(8)}, r"fit nothing .*q_norm"),
        ({}, lambda t: {f"module.{name}": x for name, x in t.items()}, "tensors are missing"),
        (
            {},
            lambda t: {n.replace("1.mlp.up_proj", "1.mlp.up"): x for n, x in t.items()},
            "missing .*; 1 tensors fit nothing",
        ),
    ],
    ids=["layers", "fewer", "width", "untied", "biases", "family", "bias", "norm", "wrapper", "renamed"],
)
def test_weights_of_another_model_are_refused_by_check_and_by_loading(
    model: Path, config: dict[str, object], change: Callable[[Tensors], Tensors] | None, message: str
) -> None:
    from distillkit_builtin.local.model.load_weights import load_weights

    set_config(model, **config)
    if change is not None:
        change_tensors(model, change, WEIGHTS)
    with pytest.raises(InputError, match=message):
        check(model)
    with pytest.raises(InputError, match=message):  # of a model on the hub, the files come only now
        load_weights(resolve_model(str(model)), torch.float32)


@pytest.mark.parametrize(
    "name",
    [
        "v_head.weight",
        "score.weight",
        "model.vision_tower.a.weight",
        "mtp.a.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.self_attn.kv_scale",
        "model.layers.0.self_attn.k_proj.output_scale",
    ],
)
def test_what_a_text_model_has_no_use_for_is_no_reason_to_refuse_it(model: Path, name: str) -> None:
    change_tensors(model, lambda tensors: {**tensors, name: torch.zeros(4)}, WEIGHTS)
    check(model)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo", "gpt_bigcode"])
def test_masks_that_gpts_once_stored_are_no_reason_to_refuse_them(tmp_path: Path, kind: str) -> None:
    sizes = {"n_layer": 1, "n_head": 4, "n_embd": 32, "n_inner": 48, "n_positions": 64}
    neo = {"num_layers": 1, "num_hidden_layers": 1, "num_heads": 4, "attention_types": [[["global"], 1]]}
    random_model(kind, **(neo if kind == "gpt_neo" else sizes)).save_pretrained(tmp_path)
    inside = "transformer.h.0.attn.attention" if kind == "gpt_neo" else "transformer.h.0.attn"
    masks = {f"{inside}.bias": torch.ones(1, 1, 64, 64), f"{inside}.masked_bias": torch.tensor(-1e4)}
    change_tensors(tmp_path, lambda tensors: {**tensors, **masks}, WEIGHTS)
    require_weights(str(tmp_path))
    change_tensors(tmp_path, lambda tensors: {**tensors, f"{inside}.more.bias": torch.zeros(32)}, WEIGHTS)
    with pytest.raises(InputError, match="1 tensors fit nothing"):
        require_weights(str(tmp_path))


def test_layers_that_draft_more_tokens_are_left_out_where_the_config_says_so(model: Path) -> None:
    change_tensors(model, lambda tensors: {**tensors, "model.layers.2.eh_proj.weight": torch.zeros(4)}, WEIGHTS)
    with pytest.raises(InputError, match="fit nothing"):
        check(model)
    set_config(model, num_nextn_predict_layers=1)
    check(model)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_that_need_scales_are_no_numbers_without_them(model: Path, dtype: torch.dtype) -> None:
    change_tensors(model, lambda t: {n: x.to(dtype) if "up_proj" in n else x for n, x in t.items()}, WEIGHTS)
    with pytest.raises(
        InputError, match=r"are stored as (I8|F8_E4M3) \(in model.safetensors\), .*layers.0.mlp.up_proj"
    ):
        check(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_formats_of_numbers_are_fine(model: Path, dtype: torch.dtype) -> None:
    change_tensors(model, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}, WEIGHTS)
    check(model)


def test_neither_bars_nor_another_report_stand_beside_what_is_said(
    tiny_model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "more"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    capfd.readouterr()
    for source in (tiny_model, str(folder)):
        with nullcontext() if source == tiny_model else pytest.raises(InputError):
            require_weights(source)
        with nullcontext() if source == tiny_model else pytest.raises(InputError):
            load_weights(resolve_model(source), torch.float32)
    assert capfd.readouterr() == ("", "")


def test_what_transformers_takes_to_the_cpu_while_it_loads_is_checked_without_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_model("qwen3_moe").save_pretrained(tmp_path)
    monkeypatch.setattr(WeightConverter, "force_cpu", property(lambda self: True, lambda self, value: None))
    require_weights(str(tmp_path))
    model, info = load_on_meta(str(tmp_path), stored_tensors(model_files(str(tmp_path))))
    assert not info["missing_keys"]
    assert {(parameter.device.type, type(parameter)) for parameter in model.parameters()} == {("meta", nn.Parameter)}
