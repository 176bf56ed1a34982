"""`data.filter` and `data.sort`: expressions over a row's columns, as its source has them."""

from collections.abc import Mapping

from pydantic import JsonValue

from distillkit.data.row_format.row_template import compile_expression
from distillkit.errors import RowError
from distillkit.files.strict_json import json_type, shortened

FILTER, SORT = "data.filter", "data.sort.by"


class RowFilter:
    """Which rows a run has."""

    def __init__(self, expression: str) -> None:
        """Raises ValueError for what is no expression."""
        self._expression = compile_expression(expression, FILTER, "0")

    @property
    def reads(self) -> frozenset[str]:
        """The columns that it reads."""
        return self._expression.reads

    def keeps(self, columns: Mapping[str, JsonValue]) -> bool:
        """Whether a row stays. Raises RowError where the expression fails, or gives neither true nor false."""
        value = self._expression.of(columns)
        if not isinstance(value, bool):
            shown = shortened(repr(value), 60)
            raise RowError(FILTER, f"gives {shown}, neither true nor false; compare it with something")
        return value


class SortKey:
    """What rows are ordered by."""

    def __init__(self, expression: str) -> None:
        """Raises ValueError for what is no expression."""
        self._expression = compile_expression(expression, SORT, "99")

    def of(self, columns: Mapping[str, JsonValue]) -> float | str:
        """A row's key, a number or a text. Raises RowError where the expression fails, or gives something else."""
        value = self._expression.of(columns)
        if isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            source = self._expression.expression
            instead = f"; `{source} | default(99, true)` is 99 then, or a text among texts" if value is None else ""
            raise RowError(SORT, f"gives a JSON {json_type(value)}, not a number or a text{instead}")
        try:
            return float(value)
        except OverflowError as error:
            raise RowError(SORT, "gives a number beyond what a float can be (about 1.8e308)") from error
