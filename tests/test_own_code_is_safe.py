"""Our own code neither unpickles nor runs what is not ours."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
TOP = HERE.parent
CODE = sorted(path for name in ("distillkit", "plugins", "examples") for path in (TOP / name).rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "torch.load", "torch.save", "numpy.load", "np.load"}
NO_LOADERS = {"AutoHfQuantizer.from_config"}
"""Classes of transformers that read a config, and never code that comes with a model."""
SAFE_LOADERS = {"yaml.SafeLoader", "_StrictLoader"}
"""The second is a SafeLoader with fewer liberties, as a test below shows."""


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
