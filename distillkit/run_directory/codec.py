"""Frozen values as JSON and back, derived from their fields, so that a new field is never forgotten.

A float32 that is written as the shortest decimal of its value comes back as the same float32.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import Array
from distillkit.roles.type_aliases import unaliased

T = TypeVar("T")
PLAIN = (str, int, float, bool, type(None))


class Encoded(dict[str, JsonValue]):
    """What `to_json` made: it is JSON all the way down, and is not gone through again."""

    __slots__ = ()


def to_json(value: object, without: Collection[str] = ()) -> Encoded:
    """The fields of a dataclass, but those named in `without`, which `from_json` must be given.

    Raises:
        TypeError: for a field of a kind that JSON does not know here.
    """
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"{value!r} is no dataclass")
    fields = [field.name for field in dataclasses.fields(value) if field.name not in without]
    return Encoded({name: _encoded(getattr(value, name)) for name in fields})


def from_json(cls: type[T], fields: Mapping[str, Any], **given: object) -> T:
    """The value that `to_json` wrote, with the fields that it left out as they are `given`.

    Raises:
        KeyError: if a field that has no default is missing.
        TypeError: if there is a field that the class does not have.
    """
    hints = _hints(cast(Hashable, cls))
    unknown = sorted(fields.keys() - hints.keys())
    if unknown:
        raise TypeError(f"{cls.__name__} has no field {unknown[0]!r}")
    read = {name: _decoded(hints[name], value) for name, value in fields.items() if name not in given}
    missing = sorted(_required(cast(Hashable, cls)) - read.keys() - given.keys())
    if missing:
        raise KeyError(f"{cls.__name__} needs {missing[0]!r}")
    return cls(**read, **given)


def _encoded(value: object) -> JsonValue:
    if isinstance(value, Encoded):
        return value
    if isinstance(value, np.ndarray):
        return _array_to_json(value)
    if isinstance(value, np.generic):  # a plugin's number may be numpy's
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON knows no NaN; where a float is expected, `float` reads it again
    if isinstance(value, PLAIN):
        return value
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, Mapping):
        return {_require_text_key(name): _encoded(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_encoded(inner) for inner in value]
    raise TypeError(f"a {type(value).__name__} cannot be saved as JSON: {value!r}")


def _require_text_key(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"only text can be a key in JSON, not {name!r}")
    return name


def _decoded(hint: Any, value: Any) -> Any:  # noqa: ANN401 - a type, and what JSON holds
    hint = unaliased(hint)  # as numpy's types of arrays may be
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:  # inside of an alias
        return _decoded(parts[0], value)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (part for part in parts if part is not type(None))  # a field has one kind of value, or None
        return None if value is None else _decoded(inner, value)
    if origin is np.ndarray:
        return _array_from_json(value)
    if hint is float:
        return float(value)
    if hint is Any or hint in PLAIN or origin is Literal:
        return value
    if dataclasses.is_dataclass(hint):
        return from_json(cast(type, hint), value)
    if origin is not None and issubclass(origin, Mapping):
        return {name: _decoded(parts[1], inner) for name, inner in value.items()}
    if origin is not None and issubclass(origin, Sequence):  # tuple[X, ...] and Sequence[X]
        return tuple(_decoded(parts[0], inner) for inner in value)
    return value  # a JsonValue


def _array_to_json(array: Array) -> JsonValue:
    """JSON has no NaN, which stands where nothing was sampled: null, which numpy reads as NaN again."""
    values: list[JsonValue] = array.reshape(-1).tolist()
    if array.dtype.kind == "f":
        for index in np.flatnonzero(~np.isfinite(array.reshape(-1))):
            values[index] = None if np.isnan(array.reshape(-1)[index]) else str(values[index])
    return {"dtype": str(array.dtype), "shape": list(array.shape), "values": values}


def _array_from_json(value: Mapping[str, Any]) -> Array:
    return np.array(value["values"], value["dtype"]).reshape(value["shape"])


@lru_cache
def _hints(cls: Hashable) -> Mapping[str, Any]:
    return get_type_hints(cast(type, cls))


@lru_cache
def _required(cls: Hashable) -> frozenset[str]:
    return frozenset(
        field.name
        for field in dataclasses.fields(cast(Any, cls))
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
