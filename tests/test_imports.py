import ast
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import distillkit

ENGINE = Path(distillkit.__file__).parent
HEAVY = {"torch", "transformers", "peft", "fireworks", "tinker", "vllm", "datasets", "wandb"}


def imported_by(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_no_file_of_the_engine_names_a_heavy_library() -> None:
    """But for what proves a loss, which computes with it, and is imported when that is done."""
    proof = ENGINE / "testing" / "loss_proof"
    found = {str(path): imported_by(path) & HEAVY for path in ENGINE.rglob("*.py") if proof not in path.parents}
    assert not {path: names for path, names in found.items() if names}


def test_the_engine_reaches_built_in_plugins_through_entry_points_alone() -> None:
    users = [path for path in ENGINE.rglob("*.py") if "distillkit_builtin" in imported_by(path)]
    assert sorted(users) == [ENGINE / "cli" / "demo.py", ENGINE / "recipes" / "distillation_loop.py"]


def test_discovering_and_describing_all_plugins_loads_nothing_heavy() -> None:
    code = (
        "import sys, distillkit.cli.main, distillkit.testing\n"
        "from distillkit import Registry\n"
        "from distillkit.cli import plugin_pages, schema\n"
        "registry = Registry.discover(); schema.as_json(registry); plugin_pages.as_json(registry)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


TOP = Path(__file__).parent.parent
ROOTS = (TOP, TOP / "plugins", TOP / "loopback")
PACKAGES = ("distillkit", "distillkit_builtin", "distillkit_loopback")


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for root in ROOTS
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }


def imports_of(path: Path, known: Collection[str]) -> set[str]:
    """The modules of the project that a file imports, wherever in it: below `TYPE_CHECKING` and in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & set(known) or {node.module}
    return found & set(known)


def circles(arrows: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            cut = stack.index(node)
            component, stack[cut:] = stack[cut:], []
            if len(component) > 1:
                found.append(sorted(component))

    for node in arrows:
        if node not in index:
            visit(node)
    return found


def test_the_test_for_circles_finds_one() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    assert {"distillkit.api", "distillkit_builtin.hooks", "distillkit_loopback"} <= known.keys()
    assert not circles({name: imports_of(path, known) for name, path in known.items()})


LOCAL = "distillkit_builtin.local."
ORDER = (
    *("model_files", "lora", "model", "batches", "fixed", "sampling", "fast", "inference", "packing"),
    *("training", "export", "memory", "ranks"),
)
"""Each folder of the local backend imports those before it: docs/developers/local-backend.md."""


def folder_of(module: str) -> str | None:
    """The folder of a module of the local backend; None for what stands beside the folders, and elsewhere."""
    folder, _, name = module.removeprefix(LOCAL).partition(".")
    return folder if module.startswith(LOCAL) and name else None


def test_folders_of_the_local_backend_import_those_before_them() -> None:
    known = modules()
    assert {folder_of(name) for name in known} == {None, *ORDER}
    later = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in imports_of(path, known)
        if (a := folder_of(name)) and (b := folder_of(other)) and ORDER.index(b) > ORDER.index(a)
    ]
    assert not later


def test_the_page_has_the_folders_of_the_local_backend_in_that_order() -> None:
    page = (TOP / "docs/developers/local-backend.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE)) == ORDER
