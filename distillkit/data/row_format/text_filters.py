"""Jinja's filters for texts and numbers, which refuse here what they would make a text or a number of without a word.

Jinja's own print null as `None` and a list as Python writes it, wherever a text is made; a text that is no number is 0.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from jinja2 import Environment, Undefined, pass_environment
from jinja2.filters import FILTERS as OF_JINJA
from jinja2.filters import make_attrgetter

from distillkit.data.row_format.template_filters import TemplateValueError
from distillkit.files.strict_json import json_type, shortened

TEXT = "string"
"""The filter that makes a text of a value."""
OF_TEXTS = (TEXT, "capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "safe",
            "striptags", "title", "trim", "truncate", "upper", "urlize", "wordcount", "wordwrap")  # fmt: skip
"""Those that make a text of a value before they do anything."""


def printed(value: Any) -> Any:  # noqa: ANN401 - as in Jinja
    """What is printed within a text. Raises TemplateValueError for what no prompt means."""
    if isinstance(value, str | int | float | Undefined) and value is not None:
        return value
    if value is None:
        raise TemplateValueError("prints null within a text; say what stands there then: `{{ column or '' }}`")
    kind = f"JSON {json_type(value)}" if isinstance(value, list | dict) else type(value).__name__
    raise TemplateValueError(f"prints a {kind} within a text; say how: `| join(', ')`, `| tojson`")


def _of_text(name: str) -> Callable[..., Any]:
    jinjas = OF_JINJA[name]
    first = int(hasattr(jinjas, "jinja_pass_arg"))  # then what Jinja passes stands before the value

    @wraps(jinjas)
    def checked(*given: Any, **options: Any) -> Any:  # noqa: ANN401 - as in Jinja
        for value in (*given[first:], *options.values()):
            _printed_by(name, value)
        return jinjas(*given, **options)

    return checked


def _printed_by(name: str, value: Any) -> Any:  # noqa: ANN401 - as in Jinja
    try:
        return printed(value)
    except TemplateValueError as error:
        raise TemplateValueError(f"{name}: {error}" if name != TEXT else str(error)) from error


@pass_environment
def _join(
    environment: Environment, values: Iterable[Any], between: str = "", attribute: str | int | None = None
) -> str:
    items = values if attribute is None else map(make_attrgetter(environment, attribute), values)
    return str(_printed_by("join", between)).join(str(_printed_by("join", item)) for item in items)


def _number(name: str) -> Callable[..., Any]:
    @wraps(OF_JINJA[name])
    def number(value: Any, default: Any = None, *base: Any) -> Any:  # noqa: ANN401 - as in Jinja
        found = OF_JINJA[name](value, default, *base)
        if found is None:
            shown = "null" if value is None else shortened(repr(value), 60)
            raise TemplateValueError(f"{name}: {shown} is no number; say what it is then: `| {name}(0)`")
        return found

    return number


TEXT_FILTERS: Mapping[str, Callable[..., Any]] = {
    **{name: _of_text(name) for name in OF_TEXTS},
    "join": _join,
    "int": _number("int"),
    "float": _number("float"),
}
