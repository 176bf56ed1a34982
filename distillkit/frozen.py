"""What frozen values hold: mappings and lists that nobody can change, in all else the `dict` and `list` of JSON.

A frozen dataclass keeps its fields, and not what a field's mapping holds. So every value (`types`, `records`, `events`)
copies what it is given into these, and whoever gets it can keep it.
"""

from collections.abc import Mapping
from typing import Any, NoReturn, Self, SupportsFloat, TypeVar

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
ATOMS = frozenset({str, int, float, bool, type(None)})
"""The types of JSON values that contain no others."""


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise TypeError("it belongs to a frozen value and cannot be changed; copy it: dict(mapping), list(values)")


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed. Made by `frozen`, so that nothing that it holds can be changed either."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[dict[K, V]]]:
        """Copies and pickles are made from a dict, since they cannot be filled afterwards."""
        return type(self), (dict(self),)


class FrozenList(list[V]):
    """A list that cannot be changed. Made by `frozen`, as `FrozenDict` is."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[list[V]]]:
        """Copies and pickles are made from a list, since they cannot be filled afterwards."""
        return type(self), (list(self),)


KEPT = ATOMS | {FrozenDict, FrozenList}


def frozen(value: T) -> T:
    """A read-only copy of `value`, all the way down: mappings are `FrozenDict`s, lists `FrozenList`s.

    What is no mapping, list or tuple stays the object that it is: numbers, texts, and what is frozen itself.
    """
    return _frozen(value)  # type: ignore[no-any-return]


def _frozen(value: Any) -> Any:  # noqa: ANN401 - as `frozen`, which says that the type stays
    kind = type(value)
    if kind is dict:
        made: FrozenDict[Any, Any] = FrozenDict(value)
        for key, item in value.items():
            if type(item) not in KEPT:
                dict.__setitem__(made, key, _frozen(item))
        return made
    if kind is list:
        return FrozenList([item if type(item) in KEPT else _frozen(item) for item in value])
    if kind in KEPT:
        return value
    if kind is tuple:
        return tuple([_frozen(item) for item in value])
    if isinstance(value, Mapping):
        return _frozen(dict(value))
    return _frozen(list(value)) if isinstance(value, list) else value


class Value:
    """Base of the frozen dataclasses: copies and pickles go through the constructor, which checks and freezes again.

    Between the processes of a run numpy's pickles forget that an array is read-only.
    """

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """The class and its fields in order, as the constructor takes them."""
        return type(self), tuple([getattr(self, name) for name in self.__match_args__])


def freeze_fields(value: object, *names: str) -> None:
    """Replace the named fields of a frozen value by read-only copies; for its constructor."""
    for name in names:
        held = getattr(value, name)
        if type(held) not in KEPT:
            object.__setattr__(value, name, _frozen(held))


def require_numbers(values: Mapping[str, object]) -> None:
    """Raise TypeError naming the first metric that is no number: a text, a list, None."""
    for name, value in values.items():
        if not isinstance(value, int | float | SupportsFloat):
            raise TypeError(f"metric {name!r} is {value!r}, which is no number")
