"""Dataset files that no one would write on purpose: refused with file, line and how to fix it, in bounded memory."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import question
from helpers import peak_memory
from helpers.rows import row_of, rows_of

from distillkit.errors import DataError, RowError
from distillkit.raw_row import MAX_ROW_BYTES as LINE_LIMIT

GOOD = question("hi")
MEBIBYTE = 2**20


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(path).validate(lambda row: None)
    return str(caught.value)


def test_a_line_of_100_megabytes_is_refused_and_never_held(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    with path.open("wb") as file:
        file.write(b'{"messages": [{"role": "user", "content": "hi"}]}\n{"messages": "')
        for _ in range(100):
            file.write(b"x" * MEBIBYTE)
        file.write(b'"}\n' + b" " * (LINE_LIMIT + 1) + b"\n[]\n")
    peak, text = peak_memory.reading(path)
    assert peak < 5 * LINE_LIMIT
    assert text.splitlines() == [
        f"{path}:2: line: is longer than 16 MiB; each row is a line of its own",
        f"{path}:3: line: is longer than 16 MiB; each row is a line of its own",
        f"{path}:4: line: is a JSON array, not an object with `messages`",
    ]


def test_a_line_at_the_limit_is_read(tmp_path: Path) -> None:
    path, rest = tmp_path / "train.jsonl", len(b'{"messages": [{"role": "user", "content": ""}]}')
    content = b"x" * (LINE_LIMIT - rest)
    path.write_bytes(b'{"messages": [{"role": "user", "content": "' + content + b'"}]}\n{}\n')
    peak, problem = peak_memory.reading(path)
    assert peak < 10 * LINE_LIMIT
    assert problem == f"{path}:2: messages: is missing; the row has no fields"
    assert len(rows_of(path).row(0).messages[0].content) == len(content)
    assert len(rows_of(path)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "line: is nested too deeply: more than 100 lists"),
        (b'{"messages": 1, "x": ' + b'{"a":' * 101 + b"1" + b"}" * 102, "line: is nested too deeply"),
        (b'{"messages": [], "x": 1e400}', "line: holds 1e400, beyond what a float can be"),
        (b'{"messages": [], "x": -1e999}', "line: holds -1e999, beyond"),
        (b'{"messages": [], "x": NaN}', "line: holds NaN, which JSON does not have; write null"),
        (b'{"messages": [], "x": [-Infinity]}', "line: holds -Infinity, which JSON does not have"),
        (b'{"messages": [], "messages": 2}', "line: holds the key 'messages' twice; which one is meant"),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "line: holds the key 'role' twice"),
        (b'{"a": 1, "b": 2, "c": 3, "b": 4, "a": 5}', "line: holds the key 'b' twice"),
        (b'{"' + b"k" * 900 + b'": 1, "' + b"k" * 900 + b'": 2}', "line: holds the key 'kkkkkk"),
        (b'{"messages": [{"role": "' + b"x" * 10_000 + b'"}]}', "messages[0].role: is 'xxxxx"),
        (b'{"messages": [{"role": "user", "content": "a\0b"}]}', "line: is not JSON: Invalid control character at"),
        (b"\xef\xbb\xbf{}", "line: is not JSON: Unexpected UTF-8 BOM"),
        (b'{"messages": "\xed\xa0\x80"}', "line: is not UTF-8: byte 14 is 0xed; save the file as UTF-8"),
        (b"\xff\xfe{\0}\0", "line: is not UTF-8: byte 0 is 0xff; save the file as UTF-8"),
        (b'{"x": [{"\\ud800": 1}]}', "x[0]: holds half of a surrogate pair"),
        (
            b"{" + b", ".join(b'"k%d": 1' % i for i in range(5000)) + b"}",
            "messages: is missing; the row has 'k0', 'k1'",
        ),
    ],
)
def test_a_row_is_refused_with_its_line_in_few_words(jsonl: Callable[..., str], line: bytes, message: str) -> None:
    path = Path(jsonl([GOOD, line]))
    said = refusal(path)
    assert said.startswith(f"{path}:2: {message}")
    assert len(said) < 500


@pytest.mark.parametrize(
    "value",
    [b"-0", b"-0.0", b"1e-400", b"9223372036854775808", b"1" + b"0" * 400, b'"\\u0000"', b'"\\u202e\\ufeff\\u2028"'],
)
def test_what_is_odd_and_yet_json_is_read(value: bytes) -> None:
    row = row_of(b'{"messages": [{"role": "user", "content": "x", "extra": ' + value + b"}]}")
    assert "extra" in row.messages[0].extra


def test_nesting_up_to_the_limit_is_read_wherever_it_is_read_from(jsonl: Callable[..., str]) -> None:
    line = b'{"messages": [{"role": "user", "content": "x"}], "x": ' + b"[" * 99 + b"]" * 99 + b"}"

    def read_at(depth: int) -> None:
        if depth:
            read_at(depth - 1)
        else:
            assert "x" in row_of(line).fields

    read_at(700)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n \t\r\n"])
def test_line_ends_blank_lines_and_a_mark_at_the_start(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "train.jsonl"
    rows = [b'{"messages": [{"role": "user", "content": "%d"}]}' % number for number in range(3)]
    for start in (b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf" + end):
        path.write_bytes(start + end.join(rows))
        assert [row.messages[0].content for row in rows_of(path).rows()] == ["0", "1", "2"]


def test_a_problem_that_quotes_the_row_is_cut(jsonl: Callable[..., str]) -> None:
    def refuse(row: object) -> None:
        raise RowError("teacher", "x" * MEBIBYTE)

    dataset = rows_of(jsonl([GOOD] * 30))
    with pytest.raises(DataError) as caught:
        dataset.validate(refuse)
    assert len(str(caught.value)) < 50_000


def test_files_without_a_row(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    for content in (b"", b"\xef\xbb\xbf", b"\r\n \n", b"\xef\xbb\xbf\n"):
        path.write_bytes(content)
        assert refusal(path) == f"{path}: holds no rows"


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), Path("/dev/null")):
        assert refusal(path).startswith(f"{path}: cannot be read: it is no regular file, and rows are read more than")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_names_that_no_file_can_have(name: str) -> None:
    said = refusal(Path(name))
    assert said == f"{name!r}: no such file; no file can be called that"
    assert said.isprintable()


def test_a_name_that_is_too_long() -> None:
    assert "cannot be read: File name too long" in refusal(Path("x" * 300))
