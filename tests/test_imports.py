import ast
import subprocess
import sys
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
    found = {str(path): imported_by(path) & HEAVY for path in ENGINE.rglob("*.py")}
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
