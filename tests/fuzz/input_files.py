"""Fuzz targets that read files: rows and configs."""

import functools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.rows import rows_of

from distillkit import Registry
from distillkit.config.load import load_config
from distillkit.data.parse_row import parse_columns, parse_row
from distillkit.data.row_format.expressions import RowFilter, SortKey
from distillkit.data.row_format.recognition import ReadAs, columns_of, recognized
from distillkit.data.row_format.row_format import RowFormat
from distillkit.errors import InputError
from distillkit.raw_row import RawRow, RowFile
from distillkit.run_directory.directory import run_directory
from distillkit.testing import FakeScorer, FakeStudent, make_teacher
from distillkit.types import Row
from distillkit_builtin.datasets.files import FilesDataset
from distillkit_builtin.prompts import MessagesPrompts
from distillkit_builtin.routers import FieldRouter
from fuzz.required import LONGEST_MESSAGE, require_short, unless_refused

SUFFIXES = (".yaml", ".toml", ".json")
LINES = RowFile("rows.jsonl", unit="line")
MAPPINGS: Sequence[Mapping[str, Any]] = (
    {
        "prompt": "{{ question }}{% for turn in turns %}{{ turn.role }}{% endfor %}",
        "system": "{{ system | default(none) }}",
        "teacher": "{{ teacher }}",
        "teacher_prompt": {"a": "{{ answer | tojson }} {{ answer }}", "b": "{{ turns }}"},
        "teacher_system": "{{ row['my column'] | upper }}",
        "expected_answer": "{{ answer[0] }}",
        "tools": "{{ cell | from_json }}",
        "fields": {"n": "{{ n * 3 + 1 }}", "power": "{{ n ** n * question }}"},
    },
    {"messages": "{{ turns | from_sharegpt | without_answer }}", "teacher_messages": "{{ turns }}"},
    {"messages": "{{ cell | from_json | without_answer }}", "chat_template_kwargs": "{{ row }}"},
)
FILTERS = [RowFilter(text).keeps for text in ("n > 2", "question in answer", "not turns", "n and n < cell")]
SORTS = [SortKey(text).of for text in ("n", "question | length", "turns[0].content", "n / (answer | length)")]
TEACHERS = (make_teacher("a"), make_teacher("b", messages_key="b_messages", missing_messages="error"))


@functools.cache
def folder() -> Path:
    """Where this process writes what it reads."""
    return Path(tempfile.mkdtemp(prefix="distillkit-fuzz-"))


@functools.cache
def registry() -> Registry:
    found = Registry.discover()
    found.add(FakeStudent)
    found.add(FakeScorer)
    return found


def dataset(data: bytes, name: str = "rows.jsonl") -> None:
    """A file of rows, which are routed and given their prompts."""
    path = folder() / name
    path.write_bytes(data)
    try:
        FilesDataset(path=str(path)).notes()
        rows = rows_of(path)
        rows.validate(routed)
        for row in rows.rows():
            json.dumps([row.fields, *(message.as_dict() for message in row.messages)], allow_nan=False).encode()
            str(row.expected_answer).encode()
            [message.content.encode() for message in row.messages]
    except InputError as error:
        require_short(error)


def routed(row: Row) -> None:
    MessagesPrompts().build(row, FieldRouter().route(row, TEACHERS), TEACHERS)


def row_format(data: bytes) -> None:
    """Rows a line each, by the shape that they have and by mappings, filters and sort keys that are given."""
    rows = [RawRow(LINES, number, line) for number, line in enumerate(data.split(b"\n")[:50], start=1)]
    columns = [found for row in rows if isinstance(found := unless_refused(lambda: parse_columns(row)), dict)]  # noqa: B023 - called at once
    formats = [RowFormat.of(mapping, TEACHERS, "teacher") for mapping in MAPPINGS]
    found = unless_refused(lambda: recognized(columns, {}, "rows"))
    if isinstance(found, ReadAs):
        formats.append(RowFormat.of(found.mapping, TEACHERS, "teacher"))
        assert len(found.note(columns_of(columns)) or "") < LONGEST_MESSAGE
    for each in columns:
        for key in (*FILTERS, *SORTS):
            assert isinstance(unless_refused(lambda: key(each)), bool | float | str | None)  # noqa: B023
    for row in rows:
        for by in formats:
            made = unless_refused(lambda: parse_row(row, "1", by))  # noqa: B023
            if isinstance(made, Row):
                json.dumps([made.fields, *(message.as_dict() for message in made.messages)], allow_nan=False).encode()
                [message.content.encode() for message in made.messages]
                unless_refused(lambda: routed(made))  # noqa: B023


def config(data: bytes) -> None:
    """The first byte chooses YAML, TOML or JSON; the first line holds overrides, the others are the file."""
    line, _, text = data[1:].partition(b"\n")
    path = folder() / f"config{SUFFIXES[(data or b'0')[0] % len(SUFFIXES)]}"
    path.write_bytes(text)
    overrides = [part for part in line.decode(errors="surrogateescape").split("\t") if part]
    try:
        found, _ = load_config([path], overrides, registry=registry())
    except InputError as error:
        require_short(error)
        return
    json.dumps(found.dump()).encode()
    assert ".." not in found.name
    assert "/" not in found.name
    assert run_directory(found.model_copy(update={"log_path": "runs/{name}"})).parent == Path("runs")
