"""`from distillkit import ...` is all that a plugin needs."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distillkit
import distillkit.testing
from distillkit import errors, events, records, types
from distillkit.roles.by_name import ROLES

TOP = Path(__file__).parent.parent
PACKAGE = TOP / "tests" / "plugin_package" / "src"
MARKED = re.compile(r"<!-- test: (\S+\.py) -->\n```\w+\n(.*?)```", re.DOTALL)
BUILT_IN = [
    *(TOP / "plugins" / "distillkit_builtin" / name for name in ("routers.py", "prompts.py", "hooks.py")),
    *(
        path
        for name in ("losses", "weightings", "evaluators", "sinks")
        for path in (TOP / "plugins/distillkit_builtin" / name).iterdir()
    ),
]


def imported_from_us(code: str) -> Iterator[tuple[str, str]]:
    """Module and name of everything that code imports of this project."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distillkit"):
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("distillkit"))


def strangers() -> Iterator[tuple[str, str]]:
    """Where the code of plugin authors stands, and the code: the tutorials' and the package of the tests."""
    for page in sorted((TOP / "docs" / "tutorials").glob("*.md")):
        for name, code in MARKED.findall(page.read_text(encoding="utf-8")):
            yield f"{page.name}: {name}", code
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.name, path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("place", "code"), list(strangers()), ids=lambda value: value.partition("\n")[0][:40])
def test_plugin_authors_import_the_public_surface_alone(place: str, code: str) -> None:
    public = {"distillkit": distillkit.__all__, "distillkit.testing": distillkit.testing.__all__}
    for module, name in imported_from_us(code):
        assert module in public, f"{place} imports {module}"
        assert name in ("", *public[module]), f"{place} imports {name} from {module}"


def test_the_tutorials_are_looked_at() -> None:
    assert {"write-a-router.md: my_router.py", "write-a-scorer.md: my_scorer.py"} <= {place for place, _ in strangers()}


def test_built_in_plugins_of_one_file_import_the_public_surface_alone() -> None:
    for path in BUILT_IN:
        if path.suffix == ".py":
            found = {module for module, _ in imported_from_us(path.read_text(encoding="utf-8"))}
            assert not {module for module in found if module.startswith("distillkit.")}, path


@pytest.mark.parametrize("module", [types, records, events, errors], ids=lambda module: module.__name__)
def test_every_value_event_and_error_is_public(module: object) -> None:
    own = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == vars(module)["__name__"] and not name.startswith("_")
    }
    assert own <= set(distillkit.__all__)


def test_every_role_is_public_and_every_public_name_is_there() -> None:
    assert {role.__name__ for role in ROLES.values()} <= set(distillkit.__all__)
    for module in (distillkit, distillkit.testing):
        assert len(module.__all__) == len(set(module.__all__))
        assert not [name for name in module.__all__ if not hasattr(module, name)]


def test_it_is_light() -> None:
    heavy = "{'torch', 'transformers', 'httpx', 'rich', 'typer', 'distillkit_builtin'}"
    code = f"import sys, distillkit; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
