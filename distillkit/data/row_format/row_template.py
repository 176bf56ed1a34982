"""A template over a row's columns, compiled once: the value of one expression, a text, or a literal."""

import difflib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.environment import Template
from jinja2.parser import Parser
from jinja2.runtime import Context
from pydantic import JsonValue

from distillkit.data.row_format.expression_hints import hint_of_name, hint_of_syntax
from distillkit.data.row_format.sandbox import environment, plain
from distillkit.data.row_format.text_filters import TEXT
from distillkit.errors import RowError
from distillkit.files.strict_json import LONE_SURROGATE, NO_TEXT, shortened

ROW = "row"
"""The name of the whole row in a template, for columns whose names are no identifiers: `{{ row["my column"] }}`."""
VALUE = "value_"
"""The variable that an expression's value is put into."""
SHOWN = 300
"""Characters of what is said of a template, and of the row's columns."""
Fields = Mapping[str, JsonValue]
Make = Callable[[Fields], JsonValue]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowTemplate:
    """What a template makes of a row."""

    key: str
    """Where it stands in the config: `data.format.prompt`."""
    reads: frozenset[str]
    """The columns that it names."""
    make: Make
    """Raises whatever a template may."""
    default: str = ""
    """Of an expression: what is advised to stand there for a column that a row has not."""
    expression: str = ""
    """What it is within its braces, so that a filter may stand behind it; empty where it is no single expression."""

    def of(self, fields: Fields) -> JsonValue:
        """Its value for a row of these columns. Raises RowError with its key."""
        try:
            return self.make(fields)
        except UndefinedError as error:
            raise RowError(self.key, self._undefined(str(error.message), fields)) from error
        except Exception as error:
            raise RowError(self.key, self._said_of(error, fields)) from error

    def _undefined(self, said: str, fields: Fields) -> str:
        name = next((name for name in self.reads if said == f"{name!r} is undefined"), None)
        if name is None or name in fields:
            return shortened(said, SHOWN)
        return _no_column(name, list(fields), self.default)

    def _said_of(self, error: Exception, fields: Fields) -> str:
        """An error at a row, in the terms of who wrote the template."""
        said = shortened(str(error), SHOWN)
        if isinstance(error, TypeError) and "NoneType" in said:
            name, value = self._first_read(fields, type(None)), self.default or "0"
            said += f"; a column is null there: `{name} | default({value}, true)` is {value} then"
        elif isinstance(error, TypeError) and "'str' and '" in said:
            name = self._first_read(fields, str)
            said += f"; a column is a text there, as every cell of CSV is: `{name} | float` is its number"
        return said if isinstance(error, TemplateError | ValueError) and said else f"{type(error).__name__}: {said}"

    def _first_read(self, fields: Fields, kind: type) -> str:
        """A column that it reads whose value is of a type, as a template names it."""
        names = [name for name in sorted(self.reads) if name.isidentifier() and isinstance(fields.get(name), kind)]
        return shortened(names[0], 60) if names else "column"


def _no_column(name: str, columns: Sequence[str], default: str) -> str:
    """What is wrong with the name of a column that a row does not have."""
    shown, close = shortened(name, 60), difflib.get_close_matches(name[:100], columns, n=1)
    meant = hint_of_name(name) or (f"did you mean {close[0]!r}?" if close else "")
    said = f"`{shown}` is no column{f'; {meant}' if meant else ''}"
    said += f"{'' if said.endswith('?') else '.'} The row has {shortened(', '.join(columns) or 'none', SHOWN)}"
    if meant or not default:
        return said
    some = f"of a column that some rows have: `{shown} | default({default}, true)`"
    return f"{said}. A text stands in quotes: '{shown}'; {some}"


def compile_template(value: JsonValue, key: str) -> RowTemplate:
    """A text as a template; of a list or an object each text in it; any other value is itself.

    Raises:
        ValueError: for a template that is none, with what is wrong and where in `value`.
    """
    if isinstance(value, str):
        return _compile_text(value, key)
    if isinstance(value, list):
        items = [_inside(item, key, f"[{index}]") for index, item in enumerate(value)]
        return RowTemplate(key, _reads(items), lambda fields: [item.make(fields) for item in items])
    if isinstance(value, dict):
        named = {name: _inside(item, key, f".{name}") for name, item in value.items()}
        make: Make = lambda fields: {name: item.make(fields) for name, item in named.items()}  # noqa: E731
        return RowTemplate(key, _reads(named.values()), make)
    return RowTemplate(key, frozenset(), lambda fields: value)


def _inside(value: JsonValue, key: str, where: str) -> RowTemplate:
    try:
        return compile_template(value, key)
    except ValueError as error:
        raise ValueError(f"{shortened(where, 60)} {error}") from error


def _reads(parts: Iterable[RowTemplate]) -> frozenset[str]:
    return frozenset(name for part in parts for name in part.reads)


def _compile_text(text: str, key: str) -> RowTemplate:
    tree = _checked(lambda: environment().parse(text))
    match tree.body:
        case []:
            return RowTemplate(key, frozenset(), lambda fields: "")
        case [nodes.Output(nodes=[nodes.TemplateData(data=literal)])]:
            return RowTemplate(key, frozenset(), lambda fields: literal)
        case [nodes.Output(nodes=[expression])]:
            return replace(
                _compile_value(expression, key), expression=_before_a_filter(_inside_braces(text), expression)
            )
    reads, template = _compiled(tree)
    context = _Contexts(template)
    return RowTemplate(key, reads, lambda fields: "".join(template.root_render_func(context.of(fields))))


def _inside_braces(text: str) -> str:
    """The source of `{{ ... }}`, whose braces may have a sign for the space around them."""
    return text.strip().removeprefix("{{").removesuffix("}}").strip("+-").strip()


def _before_a_filter(source: str, expression: nodes.Expr) -> str:
    """An expression so that a filter behind it is one of all of it: in parentheses unless it is anyway."""
    whole = isinstance(expression, nodes.Name | nodes.Filter | nodes.Getattr | nodes.Getitem | nodes.Call)
    return source if whole else f"({source})"


def compile_expression(text: str, key: str, default: str) -> RowTemplate:
    """An expression, as it stands within `{{ ... }}`. Raises ValueError for a text that is none.

    `default` is what messages advise for rows that have no such column.
    """
    if "{{" in text or "{%" in text:
        raise ValueError("is an expression, which stands here without braces")
    try:
        expression = _checked(lambda: _parse_expression(text))
        source = _before_a_filter(text.strip(), expression)
        return replace(_compile_value(expression, key), default=default, expression=source)
    except ValueError as error:
        raise ValueError(f"{error}{hint_of_syntax(text)}") from error


def _parse_expression(text: str) -> nodes.Expr:
    """As in Jinja's `compile_expression`."""
    parser = Parser(environment(), text, state="variable")
    expression = parser.parse_expression()
    if not parser.stream.eos:
        raise TemplateSyntaxError("something stands behind the expression", parser.stream.current.lineno)
    expression.set_environment(environment())
    return expression


def _compile_value(expression: nodes.Expr, key: str) -> RowTemplate:
    if isinstance(expression, nodes.Name) and expression.name not in (*environment().globals, ROW):
        return RowTemplate(key, frozenset({expression.name}), _column(expression.name))
    tree = nodes.Template([nodes.Assign(nodes.Name(VALUE, "store"), expression, lineno=1)], lineno=1)
    tree.set_environment(environment())
    reads, template = _compiled(tree)
    contexts = _Contexts(template)

    def make(fields: Fields) -> JsonValue:
        context = contexts.of(fields)
        deque(template.root_render_func(context), maxlen=0)
        return cast(JsonValue, plain(context.vars[VALUE]))

    return RowTemplate(key, reads, make)


def _column(name: str) -> Make:
    def make(fields: Fields) -> JsonValue:
        try:
            return fields[name]
        except KeyError:
            raise UndefinedError(f"{name!r} is undefined") from None

    return make


class _Contexts(threading.local):
    """What a template renders in: one context a thread, used again, since making it takes longer than rendering."""

    def __init__(self, template: Template) -> None:
        """Of one template."""
        self._context = template.new_context()

    def of(self, fields: Fields) -> Context:
        """For one row, without what `{% set %}` wrote at others. Columns hide what Jinja calls by their names."""
        self._context.parent = {**environment().globals, ROW: fields, **fields}
        self._context.vars, self._context.exported_vars = {}, set()
        return self._context


def _compiled(tree: nodes.Template) -> tuple[frozenset[str], Template]:
    """The columns that a template reads, and the template. Raises ValueError."""
    for constant in tree.find_all(nodes.Const):
        if isinstance(constant.value, str) and LONE_SURROGATE.search(constant.value):
            raise ValueError(NO_TEXT)
    if any(True for _ in meta.find_referenced_templates(tree)):
        raise ValueError("includes or imports another template, and there is none; write it out here")
    for joined in tree.find_all(nodes.Concat):  # `~`, which prints null and lists as Python writes them
        joined.nodes = [nodes.Filter(part, TEXT, [], [], None, None, lineno=part.lineno) for part in joined.nodes]
    free = _checked(lambda: meta.find_undeclared_variables(tree)) - environment().globals.keys() - {ROW}
    of_row = {name for node in tree.find_all((nodes.Getitem, nodes.Getattr)) if (name := _column_of(node)) is not None}
    return frozenset(free | of_row), _checked(lambda: environment().from_string(tree))


def _column_of(node: nodes.Expr) -> str | None:
    """The name in `row["name"]` and `row.name`."""
    match node:
        case nodes.Getattr(node=nodes.Name(name="row"), attr=str(name)):
            return name
        case nodes.Getitem(node=nodes.Name(name="row"), arg=nodes.Const(value=str(name))):
            return name
    return None


def _checked(work: Callable[[], T]) -> T:
    """What a step of Jinja's compiler gives. Raises ValueError with what is wrong with the template."""
    try:
        return work()
    except TemplateSyntaxError as error:
        line = f" (its line {error.lineno})" if error.lineno > 1 else ""
        said = shortened(str(error.message), SHOWN).rstrip(".")
        raise ValueError(f"Jinja cannot read it: {said}{line}") from error
    except (SyntaxError, ValueError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"Jinja cannot compile it: {shortened(str(error), SHOWN)}") from error
