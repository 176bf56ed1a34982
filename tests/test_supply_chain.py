"""Nothing is unpickled, no code that comes with a model runs, and what is installed is looked at: `make audit`."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import question
from scripts import licences, vulnerabilities
from typer.testing import CliRunner

from distillkit.cli.main import app

HERE = Path(__file__).parent
TOP = HERE.parent
CODE = sorted(path for name in ("distillkit", "plugins", "examples") for path in (TOP / name).rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "torch.load", "torch.save", "numpy.load", "np.load"}
NO_LOADERS = {"AutoHfQuantizer.from_config"}
"""Classes of transformers that read a config, and never code that comes with a model."""
SAFE_LOADERS = {"yaml.SafeLoader", "_StrictLoader"}
"""The second is a SafeLoader with fewer liberties, as a test below shows."""


# -- our own code


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of a name with attributes; empty for anything else."""
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def _unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what could run or unpickle something that is not ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names if one.name.split(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, problem) for problem in _unsafe_call(node))


def _unsafe_call(call: ast.Call) -> Iterator[str]:
    name = _dotted(call.func)
    options = {option.arg: option.value for option in call.keywords}
    if name in UNSAFE_CALLS:
        yield name
    if name.startswith("yaml.") and name.rpartition(".")[2] in {"load", "load_all", "unsafe_load", "full_load"}:
        loader = options.get("Loader")
        if loader is None or _dotted(loader) not in SAFE_LOADERS:
            yield name
    for option in ("shell", "allow_pickle"):
        if option in options and not _is(options[option], False):
            yield option
    if name.startswith("Auto") and name.endswith((".from_pretrained", ".from_config")) and name not in NO_LOADERS:
        if not _is(options.get("trust_remote_code"), False):
            yield f"{name} without trust_remote_code=False"
        weights = name == "AutoModelForCausalLM.from_pretrained" and "gguf_file" not in options
        if weights and not _is(options.get("use_safetensors"), True):
            yield f"{name} without use_safetensors=True"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("torch.load(path, weights_only=True)", ["torch.load"]),
        ("yaml.load(text)", ["yaml.load"]),
        ("yaml.load(text, Loader=yaml.Loader)", ["yaml.load"]),
        ("yaml.load(text, Loader=yaml.SafeLoader)", []),
        ("run('ls', shell=True)", ["shell"]),
        ("eval('1')", ["eval"]),
        ("model.eval()", []),
        ("AutoTokenizer.from_pretrained(x)", ["AutoTokenizer.from_pretrained without trust_remote_code=False"]),
        ("AutoConfig.from_pretrained(x, trust_remote_code=False)", []),
    ],
)
def test_the_test_below_finds_what_it_looks_for(code: str, found: list[str]) -> None:
    assert [name for _, name in _unsafe(ast.parse(code))] == found


def test_our_code_neither_unpickles_nor_runs_what_is_not_ours() -> None:
    assert len(CODE) > 150
    found = {
        f"{path.relative_to(TOP)}:{line}: {name}"
        for path in CODE
        for line, name in _unsafe(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_the_config_loader_is_a_safe_one() -> None:
    from distillkit.config.parse import _StrictLoader

    assert issubclass(_StrictLoader, yaml.SafeLoader)
    assert not issubclass(_StrictLoader, yaml.UnsafeLoader | yaml.FullLoader)


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


# -- what is installed


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND (MIT OR GPL-3.0)", True),
        ("Apache Software License; MIT License", True),
        ("Apache-2.0 OR GPL-2.0", True),
        ("MIT AND GPL-3.0", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_licences_are_permissive_or_they_are_not(licence: str, allowed: bool) -> None:
    assert licences.is_permissive(licence) is allowed
    package = {"Name": "some", "Version": "1", "License": licence}
    assert bool(list(licences.problems([package]))) is not allowed


def test_an_exception_is_for_one_licence() -> None:
    package = {"Name": "Hypothesis", "Version": "1", "License": "MPL-2.0"}
    assert not list(licences.problems([package]))
    (problem,) = licences.problems([{**package, "License": "AGPL-3.0"}])
    assert problem.startswith("Hypothesis 1: 'AGPL-3.0' is not allowed")


def test_what_was_not_looked_up_is_a_failure() -> None:
    wanted = list(vulnerabilities.requirements([{"name": "a_b", "version": "1+cpu"}, {"name": "c", "version": "2"}]))
    assert wanted == ["a_b==1", "c==2"]
    fine = {"name": "a-b", "version": "1", "vulns": []}
    skipped = {"name": "c", "skip_reason": "Dependency not found"}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    assert list(vulnerabilities.problems(wanted, [fine, bad])) == ["c 2: CVE-1, fixed in 3"]
    (problem,) = vulnerabilities.problems(wanted, [fine, skipped])
    assert problem == "NOT AUDITED: the service knows nothing of 1 of 2 packages (c==2)"
    assert list(vulnerabilities.problems(wanted, [fine]))


FINE = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
SKIPPED = {"dependencies": [{"name": "a", "skip_reason": "not found"}]}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (f"echo '{json.dumps(FINE)}'", 0, "none known, 1 packages"),
        (f"echo '{json.dumps(SKIPPED)}'", 1, "NOT AUDITED"),
        ("echo 'ConnectionError: no such host' >&2; exit 1", 1, "no such host"),
        ("exit 0", 1, "NOTHING WAS AUDITED"),
    ],
)
def test_an_audit_that_could_not_ask_says_so_and_fails(tmp_path: Path, answer: str, code: int, said: str) -> None:
    fake = tmp_path / "pip-audit"
    fake.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    fake.chmod(0o755)
    command = [sys.executable, str(HERE / "scripts" / "vulnerabilities.py"), str(fake)]
    listed = json.dumps([{"name": "a", "version": "1"}, {"name": "distillkit", "version": "0"}])
    done = subprocess.run(command, input=listed, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stdout
