"""What a type alias stands for: since Python 3.12 one (`type Names = list[str]`) is neither a class nor a generic type.

numpy's `NDArray` is one since numpy 2.5; a plugin's options may be written with any.
"""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import JsonValue


def unaliased(annotation: Any) -> Any:  # noqa: ANN401 - annotations have no common type
    """The type that an alias stands for, its parameters filled in; what is no alias, and JsonValue, as they are.

    Parameters that stand for several types (`*Ts`) stay open.

    Aliases that stand inside of the type are left to who goes through it, since an alias may contain itself.
    """
    alias = get_origin(annotation) or annotation
    # There are two such classes: typing's and, for earlier Pythons, typing_extensions'.
    if annotation is JsonValue or type(alias).__name__ != "TypeAliasType":
        return annotation
    value = alias.__value__
    if not all(isinstance(parameter, TypeVar) for parameter in alias.__type_params__):
        return unaliased(value)
    filled = dict(zip(alias.__type_params__, get_args(annotation), strict=False))  # parameters may have defaults
    if isinstance(value, TypeVar):
        return unaliased(filled.get(value, value))
    parameters = getattr(value, "__parameters__", ())  # in the order in which they stand in the value
    return unaliased(value[tuple(filled.get(each, each) for each in parameters)] if filled and parameters else value)


def alternatives(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - annotations have no common type
    """The types that an annotation allows: aliases, `Annotated`, unions and literals taken apart."""
    annotation = unaliased(annotation)
    if get_origin(annotation) is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from alternatives(each)
    elif get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    else:
        yield annotation
