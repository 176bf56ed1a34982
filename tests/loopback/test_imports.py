"""What the package of the loopback servers is built on."""

import ast
from collections.abc import Iterator
from pathlib import Path

import distillkit_loopback

LOOPBACK = Path(distillkit_loopback.__file__).parent
PUBLIC = {"arrays", "errors", "records", "seeds", "types"}
"""The modules of distillkit that it may use: what plugin authors import."""


def imported(folder: Path) -> Iterator[str]:
    """Every module that is imported in a folder's files, wherever in them."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module


def test_no_plugin_and_nothing_private_is_used() -> None:
    ours = {name for name in imported(LOOPBACK) if name.partition(".")[0].startswith("distillkit")}
    assert {name for name in ours if not name.startswith("distillkit_loopback")} <= {
        "distillkit",
        *(f"distillkit.{name}" for name in PUBLIC),
    }


SERVERS = ("openai", "fireworks", "tinker")
SHARED = ("transport", "hf", "training")


def test_no_server_is_built_on_another_one() -> None:
    for folder in (*SERVERS, *SHARED):
        others = tuple(f"distillkit_loopback.{other}" for other in SERVERS if other != folder)
        assert not [name for name in imported(LOOPBACK / folder) if name.startswith(others)]
