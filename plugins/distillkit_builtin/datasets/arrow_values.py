"""Arrow columns as JSON values.

Dates, times and timestamps become ISO 8601 text, decimals text, floats the shortest number of their precision, NaN
null, a map an object, a JSON text what it holds. What has no form in JSON that all would expect (bytes, and so images;
durations; unions) has no value: such columns are left out.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import JsonValue

from distillkit.files.strict_json import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

Convert = Callable[[Any], JsonValue]
"""From a value as pyarrow gives it; None is not asked about."""


def json_column(column: "pa.Array") -> list[JsonValue]:
    """The values of a column whose type `is_json`. Raises what pyarrow raises for values that are none."""
    convert = _conversion(column.type)
    values: list[JsonValue] = column.to_pylist()
    return values if convert is None else [None if value is None else convert(value) for value in values]


def is_json(kind: "pa.DataType") -> bool:
    """Whether the values of an Arrow type have a form in JSON."""
    from pyarrow import types

    if _holds_json(kind):
        return True
    if types.is_dictionary(kind):
        return is_json(kind.value_type)
    if types.is_map(kind):
        return _is_text(kind.key_type) and is_json(kind.item_type)
    if types.is_struct(kind):
        fields = _fields(kind)
        return len(dict(fields)) == len(fields) and all(is_json(inner) for _, inner in fields)
    if _is_list(kind):
        return is_json(kind.value_type)
    plain = types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    return bool(plain or _is_text(kind) or types.is_decimal(kind) or _is_time(kind))


@lru_cache  # the same for all batches of a file
def _conversion(kind: "pa.DataType") -> Convert | None:
    """What makes JSON of a value; None where it is JSON already, as most are."""
    from pyarrow import types

    if _holds_json(kind):
        return parse_json
    if types.is_dictionary(kind):
        return _conversion(kind.value_type)
    if types.is_map(kind):
        return _of_map(_conversion(kind.item_type))
    if types.is_struct(kind):
        found = {name: convert for name, inner in _fields(kind) if (convert := _conversion(inner)) is not None}
        return _of_struct(found) if found else None
    if _is_list(kind):
        inner = _conversion(kind.value_type)
        return inner and _of_list(inner)
    if types.is_floating(kind):
        return (
            _of_float
            if types.is_float64(kind)
            else _of_narrow_float(np.float32 if types.is_float32(kind) else np.float16)
        )
    if types.is_decimal(kind):
        return str
    return _of_time if _is_time(kind) else None


def _of_float(value: float) -> JsonValue:
    if math.isinf(value):
        raise ValueError("is infinite, which JSON does not have")
    return None if math.isnan(value) else value


def _of_narrow_float(narrow: type[np.floating[Any]]) -> Convert:
    """The shortest number that is this one in its own precision, as pandas and CSV print it: 0.1, not 0.10000000149."""

    def shortest(value: float) -> JsonValue:
        return None if _of_float(value) is None else float(str(narrow(value)))

    return shortest


def _of_time(value: Any) -> JsonValue:  # noqa: ANN401 - a date, a time, a datetime, or pandas' with nanoseconds
    text: str = value.isoformat()
    return text


def _of_list(convert: Convert) -> Convert:
    return lambda values: [None if value is None else convert(value) for value in values]


def _of_struct(found: dict[str, Convert]) -> Convert:
    def convert(value: dict[str, Any]) -> JsonValue:
        return {
            name: found[name](inner) if inner is not None and name in found else inner for name, inner in value.items()
        }

    return convert


def _of_map(convert: Convert | None) -> Convert:
    def pairs_to_object(pairs: list[tuple[str, Any]]) -> JsonValue:
        value = {key: inner if inner is None or convert is None else convert(inner) for key, inner in pairs}
        if len(value) < len(pairs):
            raise ValueError("a map holds a key twice; which one is meant is not said")
        return value

    return pairs_to_object


def _fields(kind: "pa.DataType") -> list[tuple[str, "pa.DataType"]]:
    return [(kind.field(i).name, kind.field(i).type) for i in range(kind.num_fields)]


def _holds_json(kind: "pa.DataType") -> bool:
    """Whether the values are JSON texts, and said to be: of Parquet's type JSON, of the feature `Json` of datasets."""
    return getattr(kind, "extension_name", None) == "arrow.json"


def _is_list(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return any(test(kind) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _is_text(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view))


def _is_time(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return any(test(kind) for test in (types.is_date, types.is_time, types.is_timestamp))
