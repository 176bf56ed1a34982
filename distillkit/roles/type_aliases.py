"""What a type alias stands for: since Python 3.12 one (`type Names = list[str]`) is neither a class nor a generic type.

numpy's `NDArray` is one since numpy 2.5; a plugin's options may be written with any.
"""

from typing import Any, TypeVar, get_args, get_origin

from pydantic import JsonValue


def unaliased(annotation: Any) -> Any:  # noqa: ANN401 - annotations have no common type
    """The type that an alias stands for, its parameters filled in; what is no alias, and JsonValue, as they are.

    Aliases that stand inside of the type are left to who goes through it, since an alias may contain itself.
    """
    alias = get_origin(annotation) or annotation
    # There are two such classes: typing's and, for earlier Pythons, typing_extensions'.
    if annotation is JsonValue or type(alias).__name__ != "TypeAliasType":
        return annotation
    filled = dict(zip(alias.__type_params__, get_args(annotation), strict=False))  # parameters may have defaults
    value = alias.__value__
    if isinstance(value, TypeVar):
        return unaliased(filled.get(value, value))
    parameters = getattr(value, "__parameters__", ())  # in the order in which they stand in the value
    return unaliased(value[tuple(filled.get(each, each) for each in parameters)] if filled and parameters else value)
