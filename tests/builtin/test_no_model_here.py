"""What a user names by mistake is called what it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distillkit import InputError
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model_files.model_config import read_config


def touch(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (touch(), "the directory is empty"),
        (touch("tokenizer.json"), "it has no config.json, so it holds no model, only a tokenizer"),
        (touch("m.Q4.gguf", "tokenizer.json"), "only m.Q4.gguf, a quantized format for inference; name the model that"),
        (touch("pytorch_model.bin"), "only pytorch_model.bin; copy the model's config.json beside it"),
        (touch("adapter_model.safetensors"), "it has weights of an adapter, and its adapter_config.json is missing"),
        (touch("config.yaml", "ledger.jsonl", "adapter/x"), "directory of a run, whose result is {here}/adapter"),
        (touch("config.yaml", "ledger.jsonl"), "the directory of a run that has not ended"),
        (touch("trainer.safetensors"), "a checkpoint of a run, which --resume reads"),
        (touch("Qwen3/config.json"), "it has no config.json, so it holds no model; {here}/Qwen3 does"),
        (touch("notes.txt"), "it has no config.json, so it holds no model"),
    ],
)
def test_a_directory_without_a_model(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(InputError) as caught:
        read_config(str(tmp_path))
    assert said.format(here=tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["./missing", "no/such/directory", "/no/such/directory", "../missing"])
def test_a_path_of_nothing_is_called_that_and_looked_for_nowhere_else(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_config(name)
    assert str(caught.value) == (
        f"the config of {name!r} cannot be read: there is no such directory. Give a local directory, or `org/name` of "
        'a model on the Hugging Face hub; where no hub is reachable, see docs/your-data.md, "Without a model hub"'
    )


def test_a_question_ends_its_sentence(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student").mkdir()
    with pytest.raises(InputError, match=r"did you mean student\? Give a local directory"):
        HFTokenizer.load("./studnet")


@pytest.mark.parametrize(
    ("name", "said"), [("m.gguf", "a quantized format"), ("config.json", "a model is a directory")]
)
def test_a_file(name: str, said: str, tmp_path: Path) -> None:
    touch(name)(tmp_path)
    for read in (read_config, HFTokenizer.load):
        with pytest.raises(InputError, match=f"it is a file[,;] {said}"):
            read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("removed", "written", "said"),
    [
        (("tokenizer.json", "tokenizer_config.json"), None, r"it holds none \(tokenizer\.json, tokenizer\.model\)"),
        ((), "tokenizer.json", r"tokenizer\.json is not JSON: Expecting property name"),
        ((), "tokenizer_config.json", r"tokenizer_config\.json is not JSON: Expecting property name"),
    ],
)
def test_a_tokenizer_that_is_not_there_or_damaged(
    removed: tuple[str, ...], written: str | None, said: str, tiny_model: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for name in removed:
        (folder / name).unlink()
    if written:
        (folder / written).write_text("{")
    with pytest.raises(InputError, match=rf"the tokenizer of .* cannot be read: {said}.*; tokenizer_model says where"):
        HFTokenizer.load(str(folder))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"model_type": "llamma"}', "says model_type 'llamma' (did you mean 'llama'?), which transformers"),
        ('{"model_type": "xyzzy-17"}', "says model_type 'xyzzy-17', which transformers"),
        (
            '{"model_type": "superllm9"}',
            "says model_type 'superllm9', which transformers",
        ),  # not superglue
        (
            '{"model_type": "llamma", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}',
            "does not know; code that comes with a model (its auto_map) is never run here",
        ),
        ('{"hidden_size": 3}', "has no model_type, so nothing says what kind of model it is of"),
    ],
)
def test_a_kind_of_model_that_is_not_known(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_config(str(tmp_path))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400
