"""JSON as rows and configs hold it: as Python reads it, frozen, and refused where Python would let something pass."""

import json
import random

import pytest
from pydantic import JsonValue

from distillkit.files.strict_json import MAX_DEPTH, ContentError, parse_json
from distillkit.frozen import FrozenDict, FrozenList

ATOMS: tuple[JsonValue, ...] = ("", "a [{", "é\n\\", "\U0001f600", 0, -7, 10**30, 1.5, 1e-300, True, False, None)


def made(numbers: random.Random, depth: int) -> JsonValue:
    """Any value, of at most so many mappings and lists in each other."""
    kind = numbers.choice(("atom", "list", "object")) if depth else "atom"
    if kind == "atom":
        return numbers.choice(ATOMS)
    inner = [made(numbers, depth - 1) for _ in range(numbers.randrange(4))]
    return inner if kind == "list" else {f"{numbers.choice('abé')}{i}": value for i, value in enumerate(inner)}


def require_frozen(value: object) -> None:
    if isinstance(value, dict | list | tuple):
        assert type(value) in (FrozenDict, FrozenList)
        for inner in value.values() if isinstance(value, dict) else value:
            require_frozen(inner)


def test_it_is_what_python_reads_and_frozen_all_the_way_down() -> None:
    numbers = random.Random(0)
    for _ in range(300):
        value = made(numbers, 5)
        for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
            found = parse_json(text)
            assert found == value
            assert json.dumps(found) == json.dumps(value)  # the order of keys, and 1 is not 1.0 or true
            require_frozen(found)


NESTED = {"lists": ("[", "]"), "mappings": ('{"a":', "}"), "both": ('[{"a":', "}]")}


@pytest.mark.parametrize("before", ["", '[1, {"b": []}, '])
@pytest.mark.parametrize("kind", NESTED)
def test_as_deep_as_it_may_be_and_no_deeper(kind: str, before: str) -> None:
    start, end = NESTED[kind]
    levels = MAX_DEPTH // (2 if kind == "both" else 1)
    texts = [f"{start * n}1{end * n}" for n in (levels, levels + 1)]
    if before:  # one level around it
        levels = (MAX_DEPTH - 1) // (2 if kind == "both" else 1)
        texts = [f"{before}{start * n}1{end * n}]" for n in (levels, levels + 1)]
    parse_json(texts[0])
    with pytest.raises(ContentError, match=f"nested too deeply: more than {MAX_DEPTH}"):
        parse_json(texts[1])


def test_many_brackets_beside_one_another_or_in_a_text_are_not_deep() -> None:
    assert parse_json(json.dumps([[], {}] * 500)) == [[], {}] * 500
    assert parse_json(json.dumps({"a": "[{" * 500})) == {"a": "[{" * 500}


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ('{"a": 1, "a": 1}', "'a'"),
        ('[[1, {"b": {"x": 1, "y": 2, "x": []}}]]', "'x'"),
        ('{"a": 1, "b": 2, "c": 3, "b": 4, "a": 5}', "'b'"),
        ('{"": {}, "\\u0061": [], "a": null}', "'a'"),
    ],
)
def test_a_key_that_stands_twice_is_named(text: str, twice: str) -> None:
    with pytest.raises(ContentError, match=f"^holds the key {twice} twice; which one is meant is not said$"):
        parse_json(text)
