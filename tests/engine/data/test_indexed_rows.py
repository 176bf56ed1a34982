import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import question
from helpers import peak_memory
from helpers.rows import row_of, rows_of

from distillkit.data import indexed_rows as module
from distillkit.data.indexed_rows import InBatches
from distillkit.errors import DataError, RowError
from distillkit.types import Row

GOOD = question("hi")


def problems(path: str) -> str:
    dataset = rows_of(path)
    with pytest.raises(DataError) as caught:
        dataset.validate(lambda row: None)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops", "line: is not JSON: "),
        (b'{"a": 1\n', "line: is not JSON: Expecting ',' delimiter at column 8"),
        (b"[1, 2]", "line: is a JSON array, not an object"),
        (b"null", "line: is a JSON null"),
        (b'"text"', "line: is a JSON string"),
        (b"{}", "messages: is missing; the row has no fields"),
        (b'{"prompt": 1}', "messages: is missing; the row has 'prompt'"),
        (b'{"messages": []}', "messages: is empty"),
        (b'{"messages": null}', "messages: is a JSON null, not a list"),
        (b'{"messages": "hi"}', "messages: is a JSON string, not a list"),
        (b'{"messages": ["hi"]}', 'messages[0]: is a JSON string, not {"role"'),
        (b'{"messages": [{"role": "user"}]}', "messages[0].content: is missing"),
        (b'{"messages": [{"content": "x"}]}', "messages[0].role: is None, not one of system"),
        (b'{"messages": [{"role": "human", "content": "x"}]}', "messages[0].role: is 'human'"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "messages[0].content: is a JSON number, not text"),
        (
            b'{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            'messages[0].content[0]: is not {"type": "text"',
        ),
        (
            b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}',
            "messages: ends with an assistant message",
        ),
        (b'{"messages": "\xff"}', "line: is not UTF-8: byte 14 is 0xff"),
        (b"[" * 100_000, "line: is nested too deeply"),
        (b'{"messages": 1' + b"0" * 5000 + b"}", "line: has an integer of more than 4300 digits"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages[0].content: holds half of a surrogate"),
        (b'{"teacher_messages": [{"content": ["a", "\\uDFFFb"]}]}', "teacher_messages[0].content[1]: holds half of a"),
        (b'{"\\ud800": 1}', "line: holds half of a surrogate pair"),
        (b'{"extra": {"\\ud800": 1}}', "extra: holds half of a surrogate pair"),
        (b'"\\ud800"', "line: holds half of a surrogate pair"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_field(jsonl: Callable[..., str], line: bytes, message: str) -> None:
    path = jsonl([GOOD, line])
    assert f"{path}:2: {message}" in problems(path)


def test_many_rows_of_one_kind_are_said_once_with_three_in_full(jsonl: Callable[..., str]) -> None:
    path = jsonl([b"x"] * 25 + [GOOD])
    said = problems(path).splitlines()
    assert said[0] == "25 of 26 rows have this problem, such as"
    assert [line[: len(path) + 20] for line in said[1:]] == [
        f"{path}:{number}: line: is not JSON"[: len(path) + 20] for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(("rows", "size"), [(2, 2**20), (256, 150), (256, 2**20)])
def test_rows_that_are_looked_at_together_are_reported_as_one_by_one(
    jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch, rows: int, size: int
) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", rows)
    monkeypatch.setattr(module, "BATCH_BYTES", size)
    path = jsonl([GOOD, b"x", question("bad"), b"", question("bad"), GOOD, b"{}"])
    seen: list[int] = []

    def look(batch: Sequence[Row]) -> list[RowError | None]:
        seen.extend(int(row.place.rpartition(":")[2]) for row in batch)
        return [RowError("messages", "says so") if row.messages[0].content == "bad" else None for row in batch]

    with pytest.raises(DataError) as caught:
        rows_of(path).validate(InBatches(look))
    assert [line.removeprefix(f"{path}:")[:12] for line in str(caught.value).splitlines()] == [
        "2: line: is ",
        "3: messages:",
        "5: messages:",
        "7: messages:",
        "  to fix it:",
    ]
    assert seen == [1, 3, 5, 6]


def test_files_that_are_absent_or_empty(tmp_path: Path, jsonl: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"nothing.jsonl: no such file \(looked from"):
        rows_of(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="holds no rows"):
        rows_of(jsonl([b"", b"   "]))
    with pytest.raises(DataError, match="holds no rows"):
        rows_of(tmp_path)  # a folder, with that file


def test_blank_lines_and_a_byte_order_mark_do_no_harm(jsonl: Callable[..., str]) -> None:
    path = jsonl([b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), b"", json.dumps(question("second")).encode()])
    rows = list(rows_of(path).rows())
    assert [row.place for row in rows] == [f"{path}:1", f"{path}:3"]
    assert rows[1].messages[0].content == "second"


def test_whole_surrogate_pairs_are_text() -> None:
    row = row_of(b'{"messages": [{"role": "user", "content": "\\ud83e\\udd8a \\u00e9"}]}', 1)
    assert row.messages[0].content == "🦊 é"


def test_unknown_fields_are_kept_and_text_parts_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = {"role": "user", "content": parts, "name": "Ada"}
    row = row_of(json.dumps({"messages": [message], "extra_info": {"x": 1}, "expected_answer": 42}).encode(), 7)
    assert row.messages[0].content == "ab"
    assert row.messages[0].as_dict()["name"] == "Ada"
    assert row.fields["extra_info"] == {"x": 1}
    assert row.expected_answer == "42"


def test_a_row_is_identified_by_line_and_content() -> None:
    same = [row_of(json.dumps(GOOD).encode(), line).row_id for line in (1, 2)]
    other = row_of(json.dumps(question("else")).encode(), 1).row_id
    assert same[0].partition("-")[2] == same[1].partition("-")[2]
    assert len({*same, other}) == 3


def test_order_is_a_permutation_that_depends_on_seed_and_epoch(jsonl: Callable[..., str]) -> None:
    dataset = rows_of(jsonl([question(str(i)) for i in range(50)]))
    first = dataset.order(0, 1, shuffle=True).tolist()
    assert sorted(first) == list(range(50))
    assert first == dataset.order(0, 1, shuffle=True).tolist()
    assert first != dataset.order(1, 1, shuffle=True).tolist()
    assert first != dataset.order(0, 2, shuffle=True).tolist()
    assert dataset.order(3, 3, shuffle=False).tolist() == list(range(50))


def test_rows_are_read_from_their_place_in_the_file(jsonl: Callable[..., str]) -> None:
    dataset = rows_of((jsonl([question(f"é{i}") for i in range(5)])), max_rows=3)
    assert len(dataset) == 3
    assert [dataset.row(i, epoch=2).messages[0].content for i in (2, 0)] == ["é2", "é0"]
    assert dataset.row(1, epoch=2).epoch == 2


@pytest.mark.parametrize("now", [[b"gone"], [question("other")], [question("first"), question("other")], []])
def test_a_row_that_changed_on_disk_is_an_error(jsonl: Callable[..., str], now: list[Any]) -> None:
    dataset = rows_of(jsonl([question("first"), GOOD]))
    path = jsonl(now)
    with pytest.raises(DataError, match=r"train\.jsonl:2: the file changed during the run"):
        dataset.row(1)
    with pytest.raises(DataError, match=r"train\.jsonl:[12]: the file changed during the run"):
        list(dataset.rows())
    Path(path).unlink()
    with pytest.raises(DataError, match=r"train\.jsonl: can no longer be read: No such file"):
        dataset.row(0)


def test_a_file_that_grows_or_is_written_again_the_same_is_no_error(jsonl: Callable[..., str]) -> None:
    dataset = rows_of(jsonl([GOOD, question("second")]))
    jsonl([GOOD, question("second"), question("third")])
    assert [row.messages[0].content for row in dataset.rows()] == ["hi", "second"]


def test_a_row_that_is_wrong_is_named_with_file_and_line_whenever_it_is_read(jsonl: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl:2: messages: is missing"):
        list(rows_of(jsonl([GOOD, b"{}"])).rows())


def test_many_rows_are_held_by_their_place_alone(jsonl: Callable[..., str]) -> None:
    path = jsonl([question(f"number {i} " + "x" * 200, teacher="a") for i in range(20_000)])
    peak, problem = peak_memory.reading(Path(path))
    assert (len(rows_of(path)), problem) == (20_000, "")
    assert peak < 2_000_000


def filtered(filters: str) -> str:
    return (
        f'data.format: {{messages: "{{{{ messages | {filters} }}}}"}}; if the config has a template for `messages`, '
        f"end that by `| {filters}`"
    )


@pytest.mark.parametrize("cell", ["[{'role': 'user', 'content': 'Hi'}]", "[{'role': 'user'}\\n {'role': 'a'}]"])
def test_a_chat_in_pythons_notation_is_said_to_be_that(jsonl: Callable[..., str], cell: str) -> None:
    assert "it is Python's notation, as pandas writes lists into CSV; write the column by json.dumps" in problems(
        jsonl([{"messages": cell}])
    )


@pytest.mark.parametrize(
    ("row", "fix"),
    [
        ({"messages": [*GOOD["messages"], {"role": "assistant", "content": "hi"}]}, filtered("without_answer")),
        ({"messages": [{"from": "human", "value": "hi"}]}, filtered("from_sharegpt | without_answer")),
        ({"messages": "Why?"}, 'data.format: {prompt: "{{ messages }}"}'),
        ({"messages": None}, 'data.filter: "messages is not none" leaves such rows out'),
        ({"messages": []}, 'data.filter: "messages | length > 0" leaves such rows out'),
        ({"prompt": "Why?"}, 'data.filter: "messages is defined" leaves such rows out'),
    ],
)
def test_what_is_wrong_with_many_rows_is_said_with_the_line_to_write(
    jsonl: Callable[..., str], row: dict[str, Any], fix: str
) -> None:
    lines = problems(jsonl([GOOD, *[row] * 400])).splitlines()
    assert lines[0] == "400 of 401 rows have this problem, such as"
    assert lines[4:] == [f"  to fix all: {fix}", f"columns of these rows: {next(iter(row))}"]
