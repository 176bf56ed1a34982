"""Write docs/reference/: one page a role, from the classes themselves. `python docs/make_reference.py`.

A test runs `pages()` and compares, so the pages cannot fall behind.
"""

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from distillkit import Registry
from distillkit.cli.plugin_pages import default_of, options_of, type_name
from distillkit.config.run_config import (
    FILLED_IN,
    DataConfig,
    PricesConfig,
    RunConfig,
    SamplingConfig,
    TeacherConfig,
    TrainConfig,
)
from distillkit.loop.guards import GuardsConfig
from distillkit.registry import HOOK_OF_ROLE
from distillkit.roles.by_name import ROLES
from distillkit.roles.plugin import Plugin

FOLDER = Path(__file__).parent / "reference"
SECTIONS: Mapping[str, type[BaseModel]] = {
    "top level": RunConfig,
    "data": DataConfig,
    "teachers[]": TeacherConfig,
    "sampling": SamplingConfig,
    "train": TrainConfig,
    "guards": GuardsConfig,
    "prices": PricesConfig,
}


def pages() -> dict[str, str]:
    """File name to content."""
    registry = Registry.discover()
    written = {f"{role}.md": role_page(registry, role) for role in ROLES}
    return written | {"config.md": config_page(), "plugin.md": plugin_page()}


def role_page(registry: Registry, role: str) -> str:
    """A role: what it decides, what a class of it implements, and the built-in plugins with their options."""
    base = ROLES[role]
    lines = [f"# {base.__name__}", "", clean(base), "", f"Hook: `{HOOK_OF_ROLE[role]}`. Role name: `{role}`.", ""]
    lines += [
        "## What a class implements",
        "",
        *methods(base),
        "and, where it needs them, what [every plugin](plugin.md) has.",
        "",
    ]
    infos = [info for info in registry.infos(role) if info.distribution == "distillkit"]
    lines += ["## Built in", ""] if infos else ["There is no built-in plugin of this role yet.", ""]
    for info in infos:
        lines += [f"### `{info.name}`", "", clean(info.cls), "", *options(info.cls)]
    return "\n".join(lines).rstrip() + "\n"


def plugin_page() -> str:
    """What all roles have in common."""
    lines = ["# Every plugin", "", clean(sys.modules[Plugin.__module__]), "", *methods(Plugin)]
    return "\n".join(lines).rstrip() + "\n"


def methods(base: type[Plugin]) -> list[str]:
    """The public methods that a class itself declares, in its order."""
    lines: list[str] = []
    for name, member in vars(base).items():
        function = member.__func__ if isinstance(member, classmethod) else member
        if inspect.isfunction(function) and not name.startswith(("_", "model_")):
            kind = "required" if getattr(function, "__isabstractmethod__", False) else "optional"
            prefix = "async " if inspect.iscoroutinefunction(function) else ""
            signature = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", str(inspect.signature(function))).replace("'", "")
            lines += [f"### `{prefix}{name}{signature}`", "", f"({kind}) {clean(function)}", ""]
    return lines


def config_page() -> str:
    """Every key of a config file that is no plugin's option."""
    lines = [
        "# Config keys",
        "",
        "A plugin's own options are on its role's page. `distillkit config schema` has all of it.",
        "",
    ]
    for title, model in SECTIONS.items():
        lines += [f"## {title}", "", clean(model), "", *options(model, "" if model is RunConfig else f"{title}.")]
    return "\n".join(lines).rstrip() + "\n"


def options(model: type[BaseModel], keys: str | None = None) -> list[str]:
    """A table of a model's fields; `keys` is what their config keys start with, if it is a section."""
    rows = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for name, field in options_of(model) if keys is None else model.model_fields.items():
        default = FILLED_IN.get(f"{keys}{name}") or default_of(field)
        kind = linked(type_name(field.annotation))
        rows.append(f"| `{name}` | {cell(kind)} | {cell(default)} | {cell(field.description or '')} |")
    return [*rows, ""] if model.model_fields else ["It has no options.", ""]


def linked(kind: str) -> str:
    """A type's name, with each role and section as a link to where it is described."""
    for role, base in ROLES.items():
        kind = re.sub(rf"\b{base.__name__}\b", f"[{role}]({role}.md)", kind)
    for title, model in SECTIONS.items():
        heading = title.removesuffix("[]")
        kind = re.sub(rf"\b{model.__name__}\b", f"[{heading}](#{heading})", kind)
    return kind


def cell(text: str) -> str:
    """Text that does not end a table's cell."""
    return text.replace("|", "\\|")


def clean(thing: object) -> str:
    """A docstring."""
    return inspect.getdoc(thing) or ""


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, content in pages().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
