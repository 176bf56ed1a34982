"""Where templates over a row's columns run: Jinja's sandbox, set up as transformers has it for chat templates.

What would make a run no function of its config, data and seed is taken out (`random`, `lipsum`), and what Jinja prints
without a word and is surely no prompt is refused: null, and lists and objects as Python writes them.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from distillkit.data.row_format.template_filters import FILTERS, TemplateValueError
from distillkit.data.row_format.text_filters import TEXT_FILTERS, printed

MOST = 2**24
"""Items of a list or characters of a text that `*` makes, and bits of a number that `*` or `**` makes."""


class RowEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox in which `*` and `**` cannot fill the memory, and `%` prints no null."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - as in Jinja
        """Jinja's, refused where the result would be too large, or print what no prompt means."""
        if _size(operator, left, right) > MOST:
            raise TemplateValueError(f"`{operator}` makes something too large")
        if operator == "%" and isinstance(left, str) and not isinstance(right, dict):
            for value in right if isinstance(right, tuple) else (right,):
                printed(value)
        return super().call_binop(context, operator, left, right)


def _size(operator: str, left: object, right: object) -> int:
    """How large the result of an operator is at most, in items, characters or bits; 0 where that is bounded."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        return bits * abs(right) if operator == "**" else bits + right.bit_length()
    for many, times in ((left, right), (right, left)):
        if operator == "*" and isinstance(many, str | list | tuple) and isinstance(times, int):
            return len(many) * max(times, 0)
    return 0


@cache
def environment() -> RowEnvironment:
    """The sandbox, made once."""
    made = RowEnvironment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printed,
        extensions=["jinja2.ext.loopcontrols"],
        optimized=False,  # nothing is worked out while a config is read
        autoescape=False,
    )
    made.filters.update(FILTERS, **TEXT_FILTERS, tojson=_to_json)
    del made.filters["random"], made.globals["lipsum"]
    return made


def _to_json(value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - JSON, or an undefined name
    """JSON as transformers' templates print it; Jinja's own is for HTML."""
    return json.dumps(plain(value), ensure_ascii=False, indent=indent)


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever an expression gives, as JSON
    """What an expression gives, as JSON: what can only be gone through once becomes a list.

    Raises:
        UndefinedError: for a name that is not defined.
        TemplateValueError: for what JSON does not have.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if isinstance(value, list | tuple | Iterator):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TemplateValueError("makes an object with a key that is no text")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, float) and value - value == 0:
        return value
    if isinstance(value, Undefined):
        str(value)  # raises
    raise TemplateValueError(f"makes {value if isinstance(value, float) else type(value).__name__}, which JSON has not")
