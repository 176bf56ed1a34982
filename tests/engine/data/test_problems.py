import json

import pytest

from distillkit.data.problems import KNOWN_KINDS, TOTAL_LIMIT, Problems, in_common
from distillkit.errors import DataError, RowError


def said(problems: Problems, of: int, *advice: str) -> list[str]:
    with pytest.raises(DataError) as caught:
        problems.raise_if_any(of, advice)
    return str(caught.value).splitlines()


def test_nothing_is_raised_where_nothing_is_wrong() -> None:
    Problems().raise_if_any(10, ["advice"])


def test_one_kind_of_problem_is_said_once_however_many_rows_have_it() -> None:
    problems = Problems()
    for number in range(1, 40_001):
        columns = {"prompt": "x", f"only_in_{number}": 1}
        error = RowError("messages", f"is missing; the row has 'prompt', 'only_in_{number}'", "data.format: ...")
        problems.add(f"train.jsonl:{number}", error, json.dumps(columns).encode())
    assert said(problems, 41_200, "and so on") == [
        "40,000 of 41,200 rows have this problem, such as",
        "train.jsonl:1: messages: is missing; the row has 'prompt', 'only_in_1'",
        "train.jsonl:2: messages: is missing; the row has 'prompt', 'only_in_2'",
        "train.jsonl:3: messages: is missing; the row has 'prompt', 'only_in_3'",
        "  to fix all: data.format: ...",
        "columns of these rows: prompt, only_in_1",
        "and so on",
    ]


def test_few_problems_are_said_one_by_one_in_their_order() -> None:
    problems = Problems()
    for number, message in enumerate(["is 'a'", "is 5", "is 'b'"], start=1):
        problems.add(f"a.jsonl:{number}", RowError("teacher", message), b'{"teacher": 1}')
    assert said(problems, 3) == ["a.jsonl:1: teacher: is 'a'", "a.jsonl:3: teacher: is 'b'", "a.jsonl:2: teacher: is 5"]


def test_kinds_of_many_rows_come_first() -> None:
    problems = Problems()
    for number in range(1, 11):
        problems.add(f"a.jsonl:{number}", RowError("x", "is rare" if number == 1 else "is frequent"))
    lines = said(problems, 10)
    assert lines[0] == "9 of 10 rows have this problem, such as"
    assert lines[1:4] == [f"a.jsonl:{number}: x: is frequent" for number in (2, 3, 4)]
    assert lines[4:] == ["a.jsonl:1: x: is rare"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("messages[0].role: is 'human'; write 'user'", "messages[12].role: is 'gpt'; write 'assistant'"),
        ('x: is "it\'s", no text', "x: is 'it', no text"),
        ("x: the row has 'a', 'b', 'c'", "x: the row has 'a'"),
        ("x: the row has 'a', 'bbbbbb...", "x: the row has 'a'"),
        ("x: 5012 prompt tokens plus 256 is 5268, of 4,096", "x: 1 prompt tokens plus 2 is 3, of 4"),
        ("x: byte 3 is 0x1f", "x: byte 12 is 0xff"),
    ],
)
def test_problems_that_differ_in_numbers_and_quotes_are_of_one_kind(one: str, other: str) -> None:
    assert in_common(one) == in_common(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("answer_1: is missing", "answer_2: is missing"),
        ("messages: is missing", "messages: is empty"),
        ("x: the student's own", "x: the teacher's own"),
        ("x: is None, no text", "x: is 'None', no text"),
    ],
)
def test_problems_that_differ_otherwise_are_not(one: str, other: str) -> None:
    assert in_common(one) != in_common(other)


def test_what_is_said_and_held_is_bounded_whatever_rows_hold() -> None:
    problems = Problems()
    long = "wörd" * 1000
    letters = "abcdefghij"
    for number in range(5 * KNOWN_KINDS):
        name = "".join(letters[int(digit)] for digit in str(number))
        for _ in range(2):
            problems.add(f"{name}.jsonl:1", RowError(name, long, long), json.dumps({f"{name}{long}": 1}).encode())
            problems.add(f"{name}.jsonl:1", RowError(name, long, long))
    lines = said(problems, 5000)
    assert sum(map(len, lines)) < TOTAL_LIMIT + 5000
    assert len(problems.kinds) == KNOWN_KINDS
    shown = sum(".jsonl:1: " in line for line in lines)
    assert lines[-2] == f"... and {4 * (5 * KNOWN_KINDS - shown // 3):,} more rows with other problems"
    assert len(lines[-1]) < 600


def test_a_copy_goes_on_by_itself() -> None:
    problems = Problems()
    problems.add("a:1", RowError("x", "is wrong"))
    copy = problems.copy()
    copy.add("a:2", RowError("x", "is wrong"))
    assert said(problems, 2) == ["a:1: x: is wrong"]
    assert said(copy, 2) == ["a:1: x: is wrong", "a:2: x: is wrong"]


@pytest.mark.parametrize("text", [b"", b"\xff", b"[1]", b"{oops", b"[" * 1000, b'{"a": NaN}'])
def test_rows_that_cannot_be_read_have_no_columns(text: bytes) -> None:
    problems = Problems()
    for number in range(5):
        problems.add(f"a:{number}", RowError("line", "is wrong"), text)
    assert not any("columns" in line for line in said(problems, 5))
