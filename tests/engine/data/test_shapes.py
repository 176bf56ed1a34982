"""Which shapes are recognized, what is made of each, and where nothing is guessed."""

from typing import Any

import pytest

from distillkit.data.row_format.column_templates import of_column
from distillkit.data.row_format.literals import same_for_all
from distillkit.data.row_format.recognition import AS_THEY_ARE, columns_of, recognized, suggested
from distillkit.data.row_format.row_format import RowFormat
from distillkit.errors import DataError

USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}
QUESTION = {"question": "Why?", "answer": "So.", "source": "x"}


@pytest.mark.parametrize(
    ("row", "shape", "mapping"),
    [
        ({"messages": [USER]}, "messages", {"messages": "{{ messages }}"}),
        ({"messages": [USER, ANSWER]}, "messages", {"messages": "{{ messages | without_answer }}"}),
        (
            {"messages": '[{"role": "user", "content": "Why?"}]'},
            "messages",
            {"messages": "{{ messages }}"},
        ),
        (
            {"messages": [HUMAN, GPT]},
            "messages",
            {"messages": "{{ messages | from_sharegpt | without_answer }}"},
        ),
        ({"prompt": "Why?", "chosen": "x", "rejected": "y"}, "prompt", {"prompt": "{{ prompt }}"}),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt", {"prompt": "{{ prompt }}"}),
        (QUESTION, "question/answer", {"prompt": "{{ question }}", "expected_answer": "{{ answer }}"}),
        ({**QUESTION, "answer": 4}, "question/answer", {"prompt": "{{ question }}", "expected_answer": "{{ answer }}"}),
        ({**QUESTION, "expected_answer": "4"}, "question/answer", {"prompt": "{{ question }}"}),
        (
            {"conversations": [HUMAN, GPT]},
            "conversations",
            {"messages": "{{ conversations | from_sharegpt | without_answer }}"},
        ),
        ({"conversations": [USER]}, "conversations", {"messages": "{{ conversations }}"}),
        (
            {"conversations": [HUMAN, GPT], "system": None},
            "conversations",
            {
                "messages": "{{ conversations | from_sharegpt | without_answer }}",
                "system": "{{ system | default('') }}",
            },
        ),
        ({"instruction": "Why?", "output": "So."}, "instruction/input/output", {"prompt": "{{ instruction }}"}),
    ],
)
def test_a_shape_and_its_mapping(row: dict[str, Any], shape: str, mapping: dict[str, str]) -> None:
    found = recognized([row], {}, "rows")
    assert (found.shape, found.mapping) == (shape, mapping)
    assert RowFormat.of(found.mapping).apply(row)["messages"] == [USER]


def test_an_instruction_with_and_without_input() -> None:
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Sing.", "input": "", "output": "La"},
    ]
    row_format = RowFormat.of(recognized(rows, {}, "rows").mapping)
    prompts = [row_format.apply(row)["messages"] for row in [*rows, {"instruction": "Sing.", "input": None}, rows[1]]]
    assert [prompt[0]["content"] for prompt in prompts] == ["Add.\n\n1 2", "Sing.", "Sing.", "Sing."]  # type: ignore[index,call-overload]


def test_what_is_told() -> None:
    found = recognized([QUESTION], {}, "rows")
    assert found.note(QUESTION) == (
        "rows are read as question/answer: data.format: "
        '{prompt: "{{ question }}", expected_answer: "{{ answer }}"}; not read by it: source'
    )
    assert recognized([{"messages": [USER], "extra": 1}], {}, "rows").note(["messages", "extra"]) is None
    assert recognized([QUESTION], {"prompt": "{{ question }}"}, "rows").note(QUESTION) is None


def test_messages_with_and_without_an_answer_stay_as_they_are() -> None:
    assert recognized([{"messages": [USER, ANSWER]}, {"messages": [USER]}], {}, "rows").mapping == AS_THEY_ARE


def test_our_own_columns_beside_messages_are_no_other_shape() -> None:
    own = {"messages": [USER], "teacher_messages": [USER], "expected_answer": "x", "teacher": "a", "tools": []}
    assert recognized([own], {}, "rows").is_plain


@pytest.mark.parametrize(
    ("row", "lines"),
    [
        ({"messages": [USER], "prompt": "Why?"}, ['{messages: "{{ messages }}"}', '{prompt: "{{ prompt }}"}']),
        (
            {"prompt": "Why?", "conversations": [HUMAN, GPT]},
            ['{prompt: "{{ prompt }}"}', '{messages: "{{ conversations | from_sharegpt | without_answer }}"}'],
        ),
        (
            {**QUESTION, "instruction": "x", "output": "y"},
            ['{prompt: "{{ question }}", expected_answer: "{{ answer }}"}', '{prompt: "{{ instruction }}"}'],
        ),
    ],
)
def test_where_two_shapes_fit_nothing_is_guessed(row: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        recognized([row], {}, "rows.jsonl")
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("rows.jsonl: rows can be read as ")
    assert "not guessed; write one of these lines below `data:`" in first
    assert [line.partition("   #")[0] for line in rest] == [f"  format: {line}" for line in lines]
    for key in ("prompt", "messages"):
        assert recognized([row], {key: "{{ x }}"}, "rows").mapping == {key: "{{ x }}"}


def test_where_none_fits_the_columns_and_a_line_to_write_are_said() -> None:
    row = {"Problem": "Why?", "Final answer": "So.", "answer": None, "long": "x" * 1000}
    with pytest.raises(DataError) as caught:
        recognized([row, row], {"system": "S"}, "rows.jsonl")
    text = str(caught.value)
    assert text.startswith("rows.jsonl: rows have none of the shapes that are recognized (messages; prompt; ")
    assert 'They have Problem, Final answer, answer, long; the first is\n  {"Problem": "Why?"' in text
    assert text.endswith('Say below `data:` what prompts are made of, such as\n  format: {prompt: "{{ Problem }}"}')
    assert len(text) < 1000
    with pytest.raises(DataError, match="rows: rows have no columns"):
        recognized([{}], {}, "rows")


def test_a_few_rows_of_another_shape_are_wrong_by_themselves() -> None:
    assert recognized([{"messages": [USER]}] * 3 + [QUESTION, {}], {}, "rows").is_plain
    with pytest.raises(DataError, match="as messages and as question/answer"):
        recognized([{"messages": [USER]}, QUESTION], {}, "rows")


def test_a_part_of_a_mapping_lies_over_the_shape() -> None:
    found = recognized([QUESTION], {"system": "S", "expected_answer": "{{source}}"}, "rows")
    assert found.mapping == {"prompt": "{{ question }}", "expected_answer": "{{ source }}", "system": "S"}
    assert found.shape == "question/answer"


def test_a_mapping_that_is_recognized_and_one_that_is_written_are_spelt_alike() -> None:
    written = recognized([QUESTION], {"expected_answer": "{{answer}}", "prompt": "{{-  question}}"}, "rows")
    assert written.mapping == recognized([QUESTION], {}, "rows").mapping
    assert recognized([QUESTION], {"messages": "{{messages}}"}, "rows").is_plain


@pytest.mark.parametrize(
    ("column", "template"),
    [
        ("question", "{{ question }}"),
        ("my column", "{{ row['my column'] }}"),
        ("it's", '{{ row["it\'s"] }}'),
        ("if", "{{ if }}"),
        ("range", "{{ row['range'] }}"),
        ("a + b", "{{ row['a + b'] }}"),
        ("x | upper", "{{ row['x | upper'] }}"),
        ("true", "{{ row['true'] }}"),
        ("a\n}}", '{{ row["a\\n}}"] }}'),
        ("", "{{ row[''] }}"),
    ],
)
def test_the_template_of_any_column(column: str, template: str) -> None:
    assert of_column(column) == template
    assert RowFormat.of({"prompt": template}).apply({column: "value"})["messages"] == [
        {"role": "user", "content": "value"}
    ]


def test_columns_of_rows_that_differ() -> None:
    assert columns_of([{"b": 1}, {"a": 1, "b": 2}]) == ["b", "a"]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"prompt": "question"}, ['prompt: "question" is the same text', 'mean "{{ question }}"?']),
        ({"prompt": " {question}"}, ['prompt: " {question}" is', 'mean " {{ question }}"?']),
        ({"prompt": "Solve { question }."}, ['mean "Solve {{ question }}."?']),
        (
            {"messages": [{"role": "user", "content": "{question}"}]},
            ["data.format.messages: ", 'mean "{{ question }}"?'],
        ),
        ({"prompt": "{{ question }}", "teacher_prompt": "answer"}, ["teacher_prompt: ", 'mean "{{ answer }}"?']),
        ({"teacher_prompt": {"math": "{answer}"}}, ["data.format.teacher_prompt.math: "]),
        ({"expected_answer": "answer"}, ["data.format.expected_answer: "]),
        ({"fields": {"topic": "my column"}}, ["data.format.fields.topic: ", """mean "{{ row['my column'] }}"?"""]),
    ],
)
def test_the_name_of_a_column_without_its_braces_is_refused(mapping: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(DataError, match=r"^rows\.jsonl: data\.format\.") as caught:
        recognized([{**QUESTION, "my column": "x"}], mapping, "rows.jsonl")
    assert "\n" not in str(caught.value)
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "mapping",
    [
        {"prompt": "{{ question }} \\boxed{answer}"},
        {"prompt": "{{ question }}", "system": "answer", "teacher_system": "{answer}", "teacher": "answer"},
        {"prompt": "Say a question."},
        {"prompt": "{{ question }}", "teacher_prompt": ""},
    ],
)
def test_texts_that_may_be_meant_are_taken(mapping: dict[str, Any]) -> None:
    assert recognized([{**QUESTION, "": "x"}], mapping, "rows").mapping == mapping


def test_a_prompt_that_is_the_same_for_every_row_is_said() -> None:
    assert [*same_for_all({"prompt": "Say a word."})] == [
        "data.format.prompt reads no column: every row has the same prompt"
    ]
    assert [*same_for_all({"messages": [{"role": "user", "content": "Hi"}]})]
    assert not [*same_for_all({"prompt": "{{ a }}", "system": "S"})]


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"question": 0, "answer": "So."}, {"prompt": "{{ question | string }}", "expected_answer": "{{ answer }}"}),
        ({"question": 0, "id": "x"}, {"prompt": "{{ question | string }}"}),
        ({"problem": "x", "question": 0, "answer": 1}, {"prompt": "{{ problem }}", "expected_answer": "{{ answer }}"}),
        ({"id": 3, "body": "x"}, {"prompt": "{{ body }}"}),
        ({"turns": []}, {"prompt": "{{ turns }}"}),
    ],
)
def test_what_is_suggested(row: dict[str, Any], mapping: dict[str, str]) -> None:
    assert suggested([row]) == mapping
