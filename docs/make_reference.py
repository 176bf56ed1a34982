"""Write docs/reference/: from the classes themselves. `python docs/make_reference.py`.

One page a role, and pages of the values, events, errors and functions that `from distillkit import ...` gives. A test
runs `pages()` and compares, so the pages cannot fall behind. What stands in a table is read from the source: a field's
type as it is written there, and the docstring below it.
"""

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel
from reference_source import class_definition, clean, docstring, fields, functions, joined, signature
from reference_topics import TOPICS, cell, index_page, row, topic_page

from distillkit import Registry
from distillkit.cli.plugin_pages import default_of, options_of, type_name
from distillkit.config.data_config import DataConfig
from distillkit.config.default_plugins import FILLED_IN
from distillkit.config.row_format_config import FormatConfig, SortConfig
from distillkit.config.run_config import RunConfig
from distillkit.config.sections import (
    GuardsConfig,
    PricesConfig,
    ProbeConfig,
    SamplingConfig,
    TeacherConfig,
)
from distillkit.config.train_config import TrainConfig
from distillkit.diagnosis import route_figures, scored_tokens
from distillkit.registry import HOOK_OF_ROLE
from distillkit.roles.by_name import ROLES
from distillkit.roles.plugin import Plugin

FOLDER = Path(__file__).parent / "reference"
SECTIONS: Mapping[str, type[BaseModel]] = {
    "top level": RunConfig,
    "data": DataConfig,
    "data.format": FormatConfig,
    "data.sort": SortConfig,
    "teachers[]": TeacherConfig,
    "sampling": SamplingConfig,
    "train": TrainConfig,
    "guards": GuardsConfig,
    "probe": ProbeConfig,
    "prices": PricesConfig,
}
DIAGNOSIS = (
    route_figures.Diagnosis,
    route_figures.RouteFigures,
    route_figures.GapFigures,
    route_figures.TenthFigures,
    route_figures.TokenFigures,
    route_figures.PromptFigures,
    route_figures.EntropyFigures,
    route_figures.TopkFigures,
    route_figures.LengthFigures,
    scored_tokens.Estimate,
)
"""Each once, behind those that hold it."""
DIAGNOSIS_JSON = (
    "The object of `Diagnosis`, with `name`, the run's, and `sentences`, the five of the page. Each route has its own "
    "`sentences` besides."
)
JSON_TYPES = {
    "float": "number",
    "int": "integer",
    "bool": "true or false",
    "str": "text",
    "None": "null",
    "tuple": "list",
    "Mapping": "object",
}
GIVEN = frozenset({"bind", "options_for", "is_complete", "describe", "is_bound", "teacher"})
"""What a role's class has already, for its plugins to use and not to replace."""


def pages() -> dict[str, str]:
    """File name to content."""
    registry = Registry.discover()
    written = {f"{role}.md": role_page(registry, role) for role in ROLES}
    written |= {"config.md": config_page(), "plugin.md": plugin_page(), "diagnosis.md": diagnosis_page()}
    return written | {name: topic_page(name) for name in TOPICS} | {"README.md": index_page()}


def role_page(registry: Registry, role: str) -> str:
    """A role: what it decides, what a class of it implements, and the built-in plugins with their options."""
    base = ROLES[role]
    lines = [f"# {base.__name__}", "", clean(base), "", f"Hook: `{HOOK_OF_ROLE[role]}`. Role name: `{role}`.", ""]
    lines += ["## What a class implements", "", *class_variables(base), *methods(base)]
    lines += ["and, where it needs them, what [every plugin](plugin.md) has.", ""]
    infos = [info for info in registry.infos(role) if info.distribution == "distillkit"]
    lines += ["## Built in", ""] if infos else ["There is no built-in plugin of this role yet.", ""]
    for info in infos:
        lines += [f"### `{info.name}`", "", clean(info.cls), "", *options(info.cls)]
    return joined(lines)


def plugin_page() -> str:
    """What all roles have in common."""
    lines = [
        "# Every plugin",
        "",
        clean(sys.modules[Plugin.__module__]),
        "",
        "## What a class may set and implement",
        "",
        *class_variables(Plugin),
        *methods(Plugin),
    ]
    return joined(lines)


def diagnosis_page() -> str:
    """The keys of `distillkit diagnose --json`: those of the classes that hold the figures."""
    lines = ["# What `distillkit diagnose --json` prints", "", clean(route_figures), "", DIAGNOSIS_JSON, ""]
    for cls in DIAGNOSIS:
        lines += [f"## {cls.__name__}", "", clean(cls), "", "| key | type | meaning |", "|---|---|---|"]
        for field in fields(class_definition(cls)):
            of_class = next(
                (docstring(class_definition(other)) for other in DIAGNOSIS if other.__name__ == field.kind), ""
            )
            lines.append(f"| `{field.name}` | {cell(json_type(field.kind))} | {cell(field.meaning or of_class)} |")
        lines.append("")
    return joined(lines)


def json_type(kind: str) -> str:
    """A type of Python as JSON has it, with each class of the page as a link."""
    for python, name in JSON_TYPES.items():
        kind = re.sub(rf"\b{python}\b", name, kind)
    for cls in DIAGNOSIS:
        kind = re.sub(rf"\b{cls.__name__}\b", f"[{cls.__name__}](#{cls.__name__.lower()})", kind)
    return kind.replace(" | ", " or ").replace(", ...", "")


def class_variables(base: type[Plugin]) -> list[str]:
    """A table of what a role's class sets in its body, but for `role` itself."""
    wanted = [field for field in fields(class_definition(base)) if field.is_class_variable and field.name != "role"]
    if not wanted:
        return []
    rows = ["| set in the class's body | type | default | meaning |", "|---|---|---|---|"]
    return [*rows, *map(row, wanted), ""]


def methods(base: type[Plugin]) -> list[str]:
    """The public methods and properties that a class itself declares, in its order."""
    lines: list[str] = []
    for node in functions(class_definition(base)):
        required = any(ast.unparse(each) == "abstractmethod" for each in node.decorator_list)
        kind = "given" if node.name in GIVEN else "required" if required else "optional"
        lines += [f"### `{signature(node)}`", "", f"({kind}) {docstring(node)}", ""]
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
    return joined(lines)


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
        kind = re.sub(rf"\b{model.__name__}\b", f"[{heading}](#{heading.replace('.', '')})", kind)
    return kind


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, content in pages().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
