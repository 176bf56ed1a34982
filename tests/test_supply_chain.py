"""Nothing that a run writes or reads is unpickled, and no code that comes with a model runs."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import question
from typer.testing import CliRunner

from distillkit.cli.main import app

HERE = Path(__file__).parent


# -- what a run writes


@pytest.fixture
def config(tmp_path: Path, tiny_model: str, other_tiny_model: str, jsonl: Callable[..., str]) -> dict[str, Any]:
    """A run of two small models."""
    model = {"device": "cpu", "dtype": "float32"}
    return {
        "name": "tiny",
        "log_path": str(tmp_path / "runs/{name}"),
        "data": {
            "path": jsonl([question(f"number {i}") for i in range(8)]),
            "eval_path": jsonl([question("held out")], "heldout.jsonl"),
        },
        "student": {"name": "local", "model": tiny_model, "lora_rank": 4, **model},
        "teachers": [{"model": other_tiny_model, "scorer": {"name": "local", **model}}],
        "sampling": {"max_completion_tokens": 8},
        "train": {"prompt_groups_per_step": 2, "max_steps": 2, "save_every": 1},
        "sinks": [],
    }


def _lines(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line)


def _tensors(path: Path) -> None:
    from safetensors.numpy import load_file

    assert load_file(path)


def _text(path: Path) -> None:
    path.read_text(encoding="utf-8")


READERS: Mapping[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _lines,
    ".yaml": lambda path: yaml.safe_load(path.read_text(encoding="utf-8")),
    ".safetensors": _tensors,
    ".log": _text,
    ".md": _text,
    ".jinja": _text,
    ".lock": _text,
}
"""By suffix: how everything that a run leaves is read. There is no other kind of file."""


def test_nothing_is_unpickled_and_every_artefact_has_a_safe_reader(tmp_path: Path, config: dict[str, Any]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, str(HERE / "helpers" / "run_without_pickle.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")
    files = [one for one in (tmp_path / "runs/tiny").rglob("*") if one.is_file()]
    assert {".json", ".jsonl", ".yaml", ".safetensors"} <= {one.suffix for one in files}
    for one in files:
        READERS[one.suffix or one.name](one)


# -- what comes with a model


@pytest.fixture
def with_code(tmp_path: Path, tiny_model: str) -> Callable[..., tuple[str, Path]]:
    """Copy the model with code of its own that leaves a mark, and say so in one of its files; returns both paths."""

    def make(file: str, **said: Any) -> tuple[str, Path]:
        folder, mark = tmp_path / "model", tmp_path / "it-ran"
        shutil.copytree(tiny_model, folder)
        code = f"open({str(mark)!r}, 'w').close()\nclass Config: ...\nclass Model: ...\nclass Tokenizer: ...\n"
        (folder / "custom.py").write_text(code, encoding="utf-8")
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps(content | said), encoding="utf-8")
        return str(folder), mark

    return make


OWN_MODEL = {"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"}
OWN_TOKENIZER = {"AutoTokenizer": ["custom.Tokenizer", "custom.Tokenizer"]}
OF_ITS_OWN: list[tuple[str, str, dict[str, Any]]] = [
    ("config", "config.json", {"model_type": "of_its_own", "auto_map": OWN_MODEL}),
    ("tokenizer", "tokenizer_config.json", {"tokenizer_class": "Tokenizer", "auto_map": OWN_TOKENIZER}),
]


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize(("what", "file", "said"), OF_ITS_OWN, ids=["model", "tokenizer"])
def test_a_model_that_needs_code_of_its_own_is_refused_and_the_code_does_not_run(
    with_code: Callable[..., tuple[str, Path]],
    config: dict[str, Any],
    tmp_path: Path,
    what: str,
    file: str,
    said: dict[str, Any],
    whose: str,
    command: str,
) -> None:
    model, mark = with_code(file, **said)
    (config["student"] if whose == "student" else config["teachers"][0])["model"] = model
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = CliRunner().invoke(app, [command, str(tmp_path / "config.yaml")], input="y\ny\ny\n")  # to who would ask
    assert done.exit_code == 2, done.output
    assert f"the {what} of {model!r} is made by code that comes with the model" in done.output
    assert "trust_remote_code is off, and no option turns it on" in done.output
    assert not mark.exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", {"auto_map": OWN_MODEL}),
        ("tokenizer_config.json", {"auto_map": OWN_TOKENIZER}),
    ],
)
def test_a_model_that_transformers_has_itself_is_used_without_the_code_that_lies_beside_it(
    with_code: Callable[..., tuple[str, Path]], config: dict[str, Any], file: str, said: dict[str, Any]
) -> None:
    import distillkit

    model, mark = with_code(file, **said)
    config["student"]["model"] = model
    assert distillkit.run(config).steps == 2
    assert not mark.exists()


def test_weights_that_are_a_pickle_are_refused(config: dict[str, Any], tiny_model: str, tmp_path: Path) -> None:
    import torch

    import distillkit
    from distillkit.errors import InputError

    class Marked:
        """Leaves a mark when it is unpickled."""

        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(tmp_path / "it-ran"), "w")

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Marked()}, folder / "pytorch_model.bin")
    config["student"]["model"] = str(folder)
    with pytest.raises(InputError, match=r"the model of .* cannot be read: .*safetensors"):
        distillkit.run(config)
    assert not (tmp_path / "it-ran").exists()


def test_no_option_turns_it_on() -> None:
    done = CliRunner().invoke(app, ["config", "schema"])
    assert done.exit_code == 0
    assert "trust" not in done.output
