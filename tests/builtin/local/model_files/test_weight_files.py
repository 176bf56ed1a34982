"""Directories of models that are not whole, or hold something else: refused by `check`, with the file's name."""

import json
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
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import WeightConverter

from distillkit.errors import InputError
from distillkit.testing import make_context
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model.load_weights import load_weights
from distillkit_builtin.local.model_files.checkpoint_fit import load_on_meta, require_weights
from distillkit_builtin.local.model_files.weight_files import model_files, stored_tensors
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.model_source import resolve_model

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def model(tiny_model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model", copy_function=shutil.copyfile))


@pytest.fixture
def shards(model: Path, tmp_path: Path) -> Path:
    """The same model in several files."""
    whole = AutoModelForCausalLM.from_pretrained(model)
    (model / WEIGHTS).unlink()
    whole.save_pretrained(model, max_shard_size="40KB")
    assert len(list(model.glob("model-*.safetensors"))) > 2
    return model


def check(model: Path) -> None:
    LocalStudent(model=str(model), device="cpu", dtype="float32").check(make_context())


def replaced(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def linked(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "cut in half",
        lambda p: replaced(p, p.read_bytes()[:20_000]),
        "model.safetensors is cut off: it has 20,000 bytes",
    ),
    (
        "one byte short",
        lambda p: replaced(p, p.read_bytes()[:-1]),
        "model.safetensors is cut off: it has .* by its header",
    ),
    (
        "cut in its header",
        lambda p: replaced(p, p.read_bytes()[:99]),
        "is cut off: it has 99 bytes, and its header alone",
    ),
    ("longer", lambda p: replaced(p, p.read_bytes() + b"x"), "model.safetensors has bytes too many"),
    ("empty", lambda p: replaced(p, b""), r"model.safetensors \(0 bytes\) is no safetensors file"),
    ("a web page", lambda p: replaced(p, b"<!DOCTYPE html><html>404</html>"), "is no safetensors file"),
    ("no header", lambda p: replaced(p, (2).to_bytes(8, "little") + b"[]"), "is no safetensors file"),
    (
        "git-lfs",
        lambda p: replaced(p, b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n"),
        "pointer of git-lfs",
    ),
    ("a link to nothing", lambda p: linked(p, "/nowhere/blob"), "is a link to /nowhere/blob, which is not there"),
    ("gone", lambda p: p.unlink(), "it holds no weights, no model.safetensors"),
    (
        "a pickle",
        lambda p: p.rename(p.parent / "pytorch_model.bin"),
        "only pytorch_model.bin, which is a pickle: .*save_pre",
    ),
    (
        "another name",
        lambda p: p.rename(p.parent / "consolidated.safetensors"),
        "only consolidated.safetensors, which no i",
    ),
    ("gguf", lambda p: p.rename(p.parent / "model-Q4_K.gguf"), "only model-Q4_K.gguf, a quantized format"),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_weights_that_are_damaged_are_named_by_check(
    model: Path, damage: Callable[[Path], object], message: str
) -> None:
    check(model)
    damage(model / WEIGHTS)
    with pytest.raises(InputError, match=message):
        check(model)


SHARDS: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "one is missing",
        lambda d: sorted(d.glob("model-*"))[1].unlink(),
        "names files that are not there: model-00002-of",
    ),
    (
        "one is cut",
        lambda d: replaced(p := sorted(d.glob("model-*"))[1], p.read_bytes()[:-5]),
        "model-00002-.* is cut off",
    ),
    (
        "one is another",
        lambda d: shutil.copy(*sorted(d.glob("model-*"))[:2]),
        "model-00002-of.* and .*model-00001-of.* both hold the tensor",
    ),
    ("the index is damaged", lambda d: (d / INDEX).write_text("{"), "index.json is no index of weights"),
    ("the index names none", lambda d: (d / INDEX).write_text('{"weight_map": {}}'), "it names no file"),
    ("a whole one beside it", lambda d: save_file({}, d / WEIGHTS), "and an index of other files, .*; remove the one"),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in SHARDS], ids=[case[0] for case in SHARDS])
def test_shards_that_do_not_make_a_model_are_named_by_check(
    shards: Path, damage: Callable[[Path], object], message: str
) -> None:
    check(shards)
    damage(shards)
    with pytest.raises(InputError, match=message):
        check(shards)


def test_headers_are_those_of_the_files(shards: Path) -> None:
    files = model_files(str(shards))
    assert files is not None
    stored = stored_tensors(files)
    expected = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert {name: tensor.shape for name, tensor in stored.items()} == {n: tuple(t.shape) for n, t in expected.items()}
    assert {tensor.format for tensor in stored.values()} == {"F32"}
    found, info = load_on_meta(str(shards), stored)
    assert not any(info.values())
    assert {parameter.device.type for parameter in found.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "it has no config.json, so it holds no model"),
        ("config.json", "{", "config.json is not JSON: Expecting property name"),
        ("config.json", "[]", "has no model_type, so nothing says what kind of model"),
        ("config.json", '{"model_type": "llama", "hidden_size": "big"}', "expected int, got str"),
        ("config.json", '{"model_type": "llama", "num_attention_heads": 0}', "ZeroDivisionError"),
        (
            "config.json",
            '{"model_type": "llama", "num_hidden_layers": -1}',
            "no model can be built from its config.json",
        ),
        (
            "config.json",
            '{"model_type": "llama", "hidden_act": "nosuch"}',
            "no model can be built .*: KeyError: 'nosuch'",
        ),
    ],
)
def test_a_config_that_no_model_can_be_made_of_is_refused(
    model: Path, name: str, content: str | None, message: str
) -> None:
    (model / name).unlink(missing_ok=True)
    if content is not None:
        (model / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        check(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "{}", "[]", ""])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_damaged_is_an_error_of_the_input(model: Path, name: str, content: str) -> None:
    (model / name).write_text(content)
    if (name, content) != ("tokenizer_config.json", "{}"):  # then everything is in the other
        with pytest.raises(InputError, match=r"the tokenizer of '.*' cannot be read: .*; tokenizer_model says where"):
            HFTokenizer.load(str(model))


def test_a_path_that_is_no_directory_is_not_looked_up_on_the_hub(model: Path, tmp_path: Path) -> None:
    for name in ("runs/none/adapter", str(tmp_path / "none"), "./none"):
        with pytest.raises(InputError, match="there is no such directory"):
            check(Path(name) if name != "./none" else Path(tmp_path / "none"))
    with pytest.raises(InputError, match=r"it is a file; a model is a directory: name .*, where this file is"):
        check(model / "config.json")


def test_a_directory_that_may_not_be_read_is_an_error_of_the_input(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refused)  # whoever runs as root may read everything
    with pytest.raises(InputError, match=r"the model '.*' cannot be read: .*Permission denied"):
        resolve_model(str(model))


def set_config(model: Path, **keys: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


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
