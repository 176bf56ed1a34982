"""How the rows of a run are read: by the shape of each source, by filter and sort, and what is said of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import question

from distillkit import Registry, RunConfig
from distillkit.errors import DataError
from distillkit.preflight.compatibility import plugins_of
from distillkit.preflight.run_rows import RunRows, read_rows

Make = Callable[..., RunConfig]
QUESTIONS = [{"question": f"Why {n}?", "answer": "So.", "level": n, "topic": "x"} for n in range(6)]
AS_QUESTIONS = (
    'rows are read as question/answer: data.format: {prompt: "{{ question }}", expected_answer: "{{ answer }}"}'
)


@pytest.fixture
def read(fake_config: Make, registry: Registry, jsonl: Callable[..., str]) -> Callable[..., RunRows]:
    def rows(train: list[Any], held_out: list[Any] | None = None, over: Any = None, **data: Any) -> RunRows:
        data["path"] = jsonl(train, "train.jsonl")
        if held_out is not None:
            data["eval_path"] = jsonl(held_out, "heldout.jsonl")
        config = fake_config(data=data, **over or {})
        return read_rows(config, plugins_of(config, registry))

    return rows


def test_rows_of_a_common_shape_are_read_and_that_is_said_once(read: Callable[..., RunRows]) -> None:
    found = read(QUESTIONS, QUESTIONS[:2])
    assert [row.messages[0].content for row in found.train.rows.rows()] == [f"Why {n}?" for n in range(6)]
    assert {row.expected_answer for row in found.train.rows.rows()} == {"So."}
    assert list(found.notes()) == [f"{AS_QUESTIONS}; not read by it: level, topic"]


def test_a_prompt_that_is_the_same_for_every_row_is_said(read: Callable[..., RunRows]) -> None:
    assert list(read(QUESTIONS, format={"prompt": "Say a word."}).warnings()) == [
        "data.format.prompt reads no column: every row has the same prompt"
    ]
    with pytest.raises(DataError, match=r"train\.jsonl: data\.format\.prompt: .* did you mean"):
        read(QUESTIONS, format={"prompt": "{question}"})


def test_held_out_rows_may_have_another_shape(read: Callable[..., RunRows]) -> None:
    found = read([question("Hi")], QUESTIONS)
    assert found.train.read_as.is_plain
    assert found.held_out is not None
    assert [row.messages[0].content for row in found.held_out.rows.rows()][:2] == ["Why 0?", "Why 1?"]
    assert list(found.notes()) == [f"{AS_QUESTIONS}; not read by it: level, topic"]


def test_a_filter_is_for_held_out_rows_too_and_a_sort_is_not(read: Callable[..., RunRows]) -> None:
    found = read(QUESTIONS[::-1], QUESTIONS[::-1], filter="level > 2", sort="level", shuffle=False)
    assert [row.fields["level"] for row in found.train.rows.rows()] == [5, 4, 3]
    assert found.train.rows.order(0, 0, shuffle=False).tolist() == [2, 1, 0]
    assert found.held_out is not None
    assert found.held_out.rows.order(0, 0, shuffle=False).tolist() == [0, 1, 2]
    assert [*found.notes()][1:] == ["data.filter keeps 3 of 6 rows", "data.filter keeps 3 of 6 held-out rows"]


def test_what_router_and_teachers_read_is_not_said_to_be_unread(read: Callable[..., RunRows]) -> None:
    teachers = [
        {
            "model": "t",
            "route_value": name,
            "teacher_messages_key": f"for_{name}",
            "missing_teacher_messages": "student",
        }
        for name in "ab"
    ]
    over = {
        "teachers": [{**teacher, "scorer": "fake"} for teacher in teachers],
        "router": {"name": "field", "route_key": "topic"},
    }
    rows = [{**row, "topic": "a", "for_b": None} for row in QUESTIONS]
    assert list(read(rows, over=over).notes()) == [f"{AS_QUESTIONS}; not read by it: level"]
    made = read(rows, over=over, format={"teacher": "b", "teacher_prompt": "{{ answer }}"}).train.rows.row(0)
    assert (made.fields["topic"], made.fields["for_b"]) == ("b", [{"role": "user", "content": "So."}])


def test_a_shape_is_looked_for_in_what_the_filter_keeps(read: Callable[..., RunRows]) -> None:
    mixed = [{"kind": "chat", **question("Hi")}] * 60 + [{"kind": "qa", **QUESTIONS[0]}] * 3
    found = read(mixed, filter="kind == 'qa'")
    assert found.train.read_as.shape == "question/answer"
    with pytest.raises(DataError, match=r"train\.jsonl:61: messages: is missing; the row has 'kind', 'question'"):
        read(mixed)


def test_rows_that_cannot_be_read_at_all_are_said_one_by_one(read: Callable[..., RunRows]) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl:1: line: is not JSON"):
        read([b"{oops"])
    with pytest.raises(DataError, match=r"train\.jsonl:2: line: is not JSON"):
        read([QUESTIONS[0], b"{oops"], filter="level < 3")


def test_what_the_source_leaves_out_is_said_where_no_shape_is_recognized(
    fake_config: Make, registry: Registry, tmp_path: Path
) -> None:
    table = pa.table({"prompt": pa.array([b"Why?"], pa.binary()), "id": [1]})
    pq.write_table(table, tmp_path / "rows.parquet")
    config = fake_config(data={"path": str(tmp_path / "rows.parquet")})
    with pytest.raises(DataError) as caught:
        read_rows(config, plugins_of(config, registry))
    assert "rows have none of the shapes" in str(caught.value)
    assert str(caught.value).splitlines()[-1].endswith("no form in JSON: prompt (binary)")


def test_the_mapping_of_the_docs(read: Callable[..., RunRows]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "your-data.md").read_text(encoding="utf-8")
    (block,) = (
        block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "path: problems.parquet" in block
    )
    mapping = yaml.safe_load(block)["data"]["format"]
    del mapping["teacher"]  # of a run of several teachers
    found = read([{"problem": "6 * 7?", "solution": "It is 42.\n#### 42", "subject": "algebra"}], format=mapping)
    (row,) = found.train.rows.rows()
    assert [message.role for message in row.messages] == ["system", "user"]
    assert (row.messages[1].content, row.expected_answer) == ("6 * 7?", "42")
    (_, privileged) = row.fields["teacher_messages"]
    assert privileged["content"] == "6 * 7?\n\nA worked solution, for you alone: It is 42.\n#### 42"


def test_a_row_that_a_template_fails_at(read: Callable[..., RunRows]) -> None:
    with pytest.raises(DataError) as caught:
        read(QUESTIONS, format={"prompt": "{{ qestion }}"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "6 of 6 rows have this problem, such as"
    assert "train.jsonl:3: data.format.prompt: `qestion` is no column; did you mean 'question'? The row has" in lines[3]
    assert lines[4:] == ["columns of these rows: question, answer, level, topic"]
