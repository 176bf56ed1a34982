"""Directories of models that are not whole: refused by `check`, with the file's name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from builtin.local.model_files.model_folders import INDEX, WEIGHTS, check
from distillkit.errors import InputError
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model_files.checkpoint_fit import load_on_meta
from distillkit_builtin.local.model_files.weight_files import model_files, stored_tensors
from distillkit_builtin.model_source import resolve_model


@pytest.fixture
def shards(model: Path, tmp_path: Path) -> Path:
    """The same model in several files."""
    whole = AutoModelForCausalLM.from_pretrained(model)
    (model / WEIGHTS).unlink()
    whole.save_pretrained(model, max_shard_size="40KB")
    assert len(list(model.glob("model-*.safetensors"))) > 2
    return model


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
