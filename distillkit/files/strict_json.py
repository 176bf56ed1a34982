"""JSON, read more strictly than Python does; values walked without recursion, and shown in short.

What comes from outside may be nested 10,000 deep, hold one key twice or half of a character, and Python would take
the last of two keys, or fail much later and elsewhere.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from pydantic import JsonValue

from distillkit.frozen import ATOMS, FrozenDict, FrozenList

MAX_DEPTH = 100
"""Of mappings and lists in each other: far below where Python's own recursion ends, wherever it is called from."""
OF_PYTHON = re.compile(r"\s*[\[{(]\s*(?:[\[{(]\s*)?(?:'|None\b|True\b|False\b)")
"""How lists and objects begin as Python writes them."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a UTF-16 pair: an escape can spell one, and it is no text, so no tokenizer takes it and no file."""
HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
"""How an escape begins that is half of a pair; it may have its other half, and there may be a backslash before it."""
NO_TEXT = "holds half of a surrogate pair (\\ud800 to \\udfff), which is no text"
Location = tuple[str | int, ...]
LinkedLocation = tuple["LinkedLocation", str | int] | None
"""A location as a linked list, the parent's and the key there: cheap to make, and most are never shown."""


class ContentError(ValueError):
    """What a file holds is not allowed. The message is the end of a sentence that begins with the location."""

    def __init__(self, message: str, location: Location = ()) -> None:
        """`location` is the way to the value, where that is known."""
        super().__init__(message)
        self.location = location


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of a text that may be long enough to bury the message around it."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def json_type(value: JsonValue) -> str:
    """What JSON calls the type of a value: `object`, `array`, `string`, ..."""
    names = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    return next((names[kind] for kind in type(value).__mro__ if kind in names), "null")


def parse_json(text: str) -> JsonValue:
    """What `text` holds, as values that nobody can change, so that nobody has to copy them.

    Raises:
        json.JSONDecodeError: if it is not JSON.
        ContentError: for what Python lets pass: a key that stands twice, NaN, infinity, numbers that become infinite,
            half characters, and nesting beyond `MAX_DEPTH`.
    """
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
    try:
        value: JsonValue = _frozen(DECODER.decode(text))
    except (json.JSONDecodeError, ContentError):
        raise
    except ValueError as error:  # of Python, which turns no more digits into an integer
        raise ContentError(f"has an integer of more than {sys.get_int_max_str_digits()} digits") from error
    except RecursionError as error:
        raise _too_deep() from error
    if HALF_ESCAPED.search(text):
        for linked, inner in walk(value):
            if isinstance(inner, str) and LONE_SURROGATE.search(inner):
                raise ContentError(NO_TEXT, location_of(linked))
    return value


def _frozen(value: Any, depth: int = 1) -> JsonValue:  # noqa: ANN401 - JSON whose objects are tuples of pairs
    """A value of JSON, frozen. Raises ContentError for a key that stands twice, and where it is nested too deeply."""
    kind = type(value)
    if kind in ATOMS:
        return value  # type: ignore[no-any-return]
    if depth > MAX_DEPTH:
        raise _too_deep()
    if kind is list:
        return FrozenList([item if type(item) in ATOMS else _frozen(item, depth + 1) for item in value])
    made: FrozenDict[str, JsonValue] = FrozenDict(value)
    if len(made) < len(value):
        twice = shortened(repr(_first_again(value)), 60)
        raise ContentError(f"holds the key {twice} twice; which one is meant is not said")
    for key, item in value:
        if type(item) not in ATOMS:
            dict.__setitem__(made, key, _frozen(item, depth + 1))
    return made


def _first_again(pairs: Sequence[tuple[str, object]]) -> str:
    """The first key that stands where another has its own place."""
    left = list(dict(pairs))
    return next(key for at, (key, _) in enumerate(pairs) if at >= len(left) or key != left[at])


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ContentError(f"holds {shortened(digits, 60)}, beyond what a float can be (about 1.8e308)")
    return value


def _no_number(name: str) -> NoReturn:
    raise ContentError(f"holds {name}, which JSON does not have; write null, or a text")


DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_float=_number, parse_constant=_no_number)
"""Makes tuples of pairs, of which `_frozen` makes mappings. Made once: `json.loads` makes one for every text."""


def _too_deep() -> ContentError:
    return ContentError(f"is nested too deeply: more than {MAX_DEPTH} lists and mappings in each other")


def walk(value: JsonValue) -> Iterator[tuple[LinkedLocation, JsonValue]]:
    """Every value in `value`, itself and the keys of mappings too, with its location.

    Raises:
        ContentError: where it is nested deeper than `MAX_DEPTH`; so also where it holds itself.
    """
    levels: list[Iterator[tuple[LinkedLocation, JsonValue]]] = [iter([(None, value)])]
    while levels:
        found = next(levels[-1], None)
        if found is None:
            levels.pop()
            continue
        yield found
        linked, inner = found
        if isinstance(inner, dict | list):
            if len(levels) > MAX_DEPTH:
                raise _too_deep()
            levels.append(_inside(linked, inner))


def _inside(
    linked: LinkedLocation, value: Mapping[str, JsonValue] | list[JsonValue]
) -> Iterator[tuple[LinkedLocation, JsonValue]]:
    if isinstance(value, list):
        yield from (((linked, index), item) for index, item in enumerate(value))
        return
    for key, item in value.items():
        yield linked, key
        yield (linked, key), item


def location_of(linked: LinkedLocation) -> Location:
    """The keys from the outermost value to this one, as a tuple."""
    keys: list[str | int] = []
    while linked is not None:
        linked, key = linked
        keys.append(key)
    return tuple(reversed(keys))


def said_of_decoding(error: json.JSONDecodeError) -> str:
    """Why a text is no JSON, and where; Python's own notation is said to be that."""
    said = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
    if not OF_PYTHON.match(error.doc):
        return said
    return f"{said}; it is Python's notation, as pandas writes lists into CSV; write the column by json.dumps"
