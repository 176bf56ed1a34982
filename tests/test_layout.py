"""Small files and functions, one name a file, and nothing but what users import at the top of `distillkit/`."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

TOP = Path(__file__).parent.parent
ROOTS = ("distillkit", "plugins/distillkit_builtin", "loopback/distillkit_loopback")
FILE_LINES, FUNCTION_LINES = 250, 40
ONE_PAGE = {"distillkit/loop/engine.py": 150}
"""The engine is the documentation: one page, the order of events and nothing else."""
TOO_LONG = {
    # A Triton kernel is one program: a part of it is no function that can be called, or tested, by itself.
    "plugins/distillkit_builtin/local/fast/decode_kernel.py::_attend",
}
"""What may be longer. A file or function that no longer is must be taken out."""
PUBLIC = {
    "__init__.py",
    "__main__.py",
    "api.py",
    "arrays.py",
    "context.py",
    "errors.py",
    "events.py",
    "frozen.py",
    "hookspecs.py",
    "memory.py",
    "metrics.py",
    "positions.py",
    "py.typed",
    "ranks.py",
    "raw_row.py",
    "records.py",
    "registry.py",
    "run_plan.py",
    "seeds.py",
    "token_arrays.py",
    "significant.py",
    "tokenizer.py",
    "training_data.py",
    "types.py",
}
FOLDERS = {
    "cli",
    "config",
    "data",
    "diagnosis",
    "files",
    "loop",
    "preflight",
    "probe",
    "prompt_check",
    "publishing",
    "recipes",
    "report",
    "roles",
    "run_directory",
    "testing",
    "verdict",
    "view",
}
IMPORTED_FROM = {"distillkit/__init__.py", "distillkit/testing/__init__.py"}
"""What `from distillkit import ...` and `from distillkit.testing import ...` give."""


def sources() -> Iterator[tuple[str, str]]:
    """Path from the top of the repository, and text, of every file of the engine, the plugins and the servers."""
    for root in ROOTS:
        for path in sorted((TOP / root).rglob("*.py")):
            yield path.relative_to(TOP).as_posix(), path.read_text(encoding="utf-8")


def too_long(path: str, text: str) -> Iterator[str]:
    """The file, and `file::function` for each of its functions: docstrings count, decorators do not."""
    if len(text.splitlines()) > ONE_PAGE.get(path, FILE_LINES):
        yield path
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno + 1 > FUNCTION_LINES:
                yield f"{path}::{node.name}"


def package_of(path: str) -> str:
    """Where no two files share a name: the engine, and each folder of the plugins and of the servers."""
    root = next(root for root in ROOTS if path.startswith(f"{root}/"))
    folder, _, _ = path.removeprefix(f"{root}/").rpartition("/")
    return root if root == "distillkit" or not folder else f"{root}/{folder.partition('/')[0]}"


def test_files_fit_on_a_few_screens_and_functions_on_one() -> None:
    assert {found for path, text in sources() for found in too_long(path, text)} == TOO_LONG


def test_the_other_files_fit_on_a_few_screens_too() -> None:
    folders = "tests", "benchmarks", "docs", "examples"
    files = [path for folder in folders for path in (TOP / folder).rglob("*.py")]
    assert len(files) > 500
    lines = {str(path.relative_to(TOP)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path for path, count in lines.items() if count > FILE_LINES} == set()


def test_what_is_too_long_would_be_found() -> None:
    body = "    x = 1\n" * FUNCTION_LINES
    assert list(too_long("a.py", f"@f\n@g\ndef short():\n{body[:-10]}")) == []
    assert list(too_long("a.py", f"class A:\n  async def long():\n{body}")) == ["a.py::long"]
    assert list(too_long("a.py", "x = 1\n" * (FILE_LINES + 1))) == ["a.py"]
    assert list(too_long("distillkit/loop/engine.py", "x = 1\n" * 151)) == ["distillkit/loop/engine.py"]


def test_no_two_files_of_a_package_share_a_name() -> None:
    names = Counter(f"{package_of(path)}/{path.rpartition('/')[2]}" for path, _ in sources())
    shared = {name for name, count in names.items() if count > 1}
    assert {name for name in shared if not name.endswith(("__init__.py", "__main__.py"))} == set()


def test_no_two_classes_of_a_package_share_a_name() -> None:
    """A private one is its file's own."""
    found = [
        f"{package_of(path)}:{node.name}"
        for path, text in sources()
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert {name for name, count in Counter(found).items() if count > 1} == set()


def modules_of_tests() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name from `tests/`, as it is imported, and tree of every file below."""
    for path in sorted((TOP / "tests").rglob("*.py")):
        parts = path.relative_to(TOP / "tests").with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text(encoding="utf-8"))


def imported(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The module and the name of each import, wherever it stands; of a whole module the name is empty."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((source, alias.name) for alias in node.names)


def is_fixture(node: ast.AST) -> bool:
    """A function with `@pytest.fixture`, or with a call of it."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
    return any(ast.unparse(each).partition("(")[0].endswith("fixture") for each in decorators)


def wrongly_shared(modules: Mapping[str, ast.Module]) -> set[str]:
    """Imports from a file of tests, and of a fixture, but by a `conftest` from another folder's."""
    fixtures = {(name, node.name) for name, tree in modules.items() for node in tree.body if is_fixture(node)}
    found = set()
    for module, tree in modules.items():
        for source, name in imported(module, tree):
            of_tests = any(part.startswith("test_") for part in [*source.split("."), name])
            between_folders = module.endswith("conftest") and source.endswith("conftest")
            if of_tests or ((source, name) in fixtures and not between_folders):
                found.add(f"{module}: {source}.{name}".rstrip("."))
    return found


def test_tests_share_fixtures_by_conftest_and_all_else_by_modules_that_are_no_tests() -> None:
    """A fixture that is imported needs a `noqa`, and hides from whoever reads the test where it is from."""
    modules = dict(modules_of_tests())
    assert len(modules) > 500
    assert wrongly_shared(modules) == set()


def test_what_is_wrongly_shared_would_be_found() -> None:
    fixture = "@pytest.fixture(autouse=True)\ndef _key(): ...\n@fixture\nasync def service(): ...\ndef plain(): ..."
    texts = {
        "a.conftest": fixture,
        "a.runs": fixture,
        "b.conftest": "from a.conftest import _key",
        "a.b.test_1": "from a.test_2 import x\nfrom ..test_3 import y\nfrom .. import test_4\nimport a.test_5 as z",
        "a.test_6": "from a.runs import _key, plain\ndef f():\n    from .conftest import service, plain",
        "c.conftest": "from a.runs import _key",
    }
    assert wrongly_shared({name: ast.parse(text) for name, text in texts.items()}) == {
        *("a.b.test_1: a.test_2.x", "a.b.test_1: a.test_3.y", "a.b.test_1: a.test_4", "a.b.test_1: a.test_5"),
        *("a.test_6: a.runs._key", "a.test_6: a.conftest.service", "c.conftest: a.runs._key"),
    }


def test_packages_import_nothing_of_their_own_accord() -> None:
    nodes = {path: ast.walk(ast.parse(text)) for path, text in sources() if path.endswith("/__init__.py")}
    importing = {path for path, tree in nodes.items() if any(isinstance(n, ast.Import | ast.ImportFrom) for n in tree)}
    assert importing == IMPORTED_FROM


def test_at_the_top_stands_what_users_and_plugin_authors_import() -> None:
    found = {path.name for path in (TOP / "distillkit").iterdir() if path.name != "__pycache__"}
    assert found == PUBLIC | FOLDERS
