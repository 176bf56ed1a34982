"""What `data.format` makes of a row, and for whom."""

import json
from typing import Any

import pytest
from helpers.rows import LINES

from distillkit.data.parse_row import parse_messages, parse_row
from distillkit.data.row_format.expressions import RowFilter
from distillkit.data.row_format.row_format import RowFormat
from distillkit.errors import RowError
from distillkit.raw_row import RawRow
from distillkit.testing import make_teacher

TEACHERS = (make_teacher("math"), make_teacher("prose", messages_key="prose_messages"))
ROW = {"question": "Why?", "answer": "So.", "kind": "math", "hint": "", "nothing": None}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def made(mapping: dict[str, Any], row: Any = ROW, field: str | None = None) -> dict[str, Any]:
    """What is new or other than in the row."""
    found = RowFormat.of(mapping, TEACHERS[: 2 if field else 1], field).apply(row)
    return {name: value for name, value in found.items() if name not in row or value != row[name]}


def refused(mapping: dict[str, Any], row: Any = ROW) -> str:
    with pytest.raises(RowError) as caught:
        made(mapping, row)
    return str(caught.value)


def test_a_prompt_is_one_users_message_behind_the_system_message() -> None:
    assert made({"prompt": "{{ question }}"}) == {"messages": [user("Why?")]}
    assert made({"prompt": "{{ question }}", "system": "Be {{ kind }}."}) == {
        "messages": [system("Be math."), user("Why?")]
    }


def test_columns_stay_beside_what_is_made() -> None:
    found = RowFormat.of({"prompt": "{{ question }}", "expected_answer": "{{ answer }}"}).apply(ROW)
    assert found == {**ROW, "messages": [user("Why?")], "expected_answer": "So."}


@pytest.mark.parametrize("nothing", ["{{ nothing }}", "{{ hint }}", ""])
def test_null_and_an_empty_text_are_not_given(nothing: str) -> None:
    prompt = {"prompt": "{{ question }}"}
    assert made({**prompt, "system": nothing}) == {"messages": [user("Why?")]}
    assert made({**prompt, "expected_answer": nothing})["expected_answer"] is None
    assert made({**prompt, "teacher_prompt": nothing})["teacher_messages"] is None
    assert made({**prompt, "teacher_system": nothing})["teacher_messages"] is None
    assert refused({"prompt": nothing}).startswith("data.format.prompt: makes no prompt of this row")
    assert refused({"messages": nothing}).startswith("data.format.messages: makes no prompt of this row")


def test_a_list_of_messages_as_prompt() -> None:
    turns = [user("Hi"), {"role": "assistant", "content": "Hi"}, user("Why?")]
    assert made({"prompt": "{{ turns }}"}, {"turns": turns}) == {"messages": turns}
    assert made({"prompt": "{{ turns }}", "system": "S"}, {"turns": turns}) == {"messages": [system("S"), *turns]}
    assert made({"messages": [user("{{ turns | length }} turns")]}, {"turns": turns}) == {"messages": [user("3 turns")]}


def test_the_system_message_of_rows_that_hold_messages() -> None:
    assert made({"system": "S"}, {"messages": [user("Why?")]}) == {"messages": [system("S"), user("Why?")]}
    for role in ("system", "developer"):
        row = {"messages": [{"role": role, "content": "Mine"}, user("Why?")]}
        assert refused({"system": "S"}, row) == (
            "data.format.system: makes a system message, and the prompt begins with one already"
        )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"prompt": "{{ 3 }}"}, "data.format.prompt: makes a JSON number, not a text or a list of messages"),
        ({"prompt": "{{ 3 }}"}, "data.format.prompt: makes a JSON number, not a text or a list of messages; write"),
        ({"prompt": "x", "system": "{{ 3 + 1 }}"}, "data.format.system: makes a JSON number, not a text; write"),
        ({"prompt": "{{ {} }}"}, "data.format.prompt: makes a JSON object"),
        ({"prompt": "x", "system": "{{ 3 }}"}, "data.format.system: makes a JSON number, not a text"),
        (
            {"messages": "{{ question }}"},
            "data.format.messages: makes a JSON string, not a list of messages",
        ),
        (
            {"prompt": "x", "teacher_messages": "{{ 3 }}"},
            "data.format.teacher_messages: makes a JSON number, not a list",
        ),
        ({"prompt": "x", "fields": {"a": "{{ b }}"}}, "data.format.fields.a: `b` is no column"),
        ({"prompt": "x", "tools": "{{ b }}"}, "data.format.tools: `b` is no column"),
    ],
)
def test_what_is_refused_names_the_key(mapping: dict[str, Any], message: str) -> None:
    assert refused(mapping).startswith(message)


def test_rows_without_messages_are_refused_where_messages_are_parsed() -> None:
    raw = RawRow.of(LINES, 1, ROW)
    with pytest.raises(RowError, match="messages: is missing; the row has 'question'"):
        parse_row(raw, "1", RowFormat.of({"expected_answer": "{{ answer }}"}))
    with pytest.raises(RowError, match="messages: is missing"):
        parse_row(raw, "1", RowFormat.of({"teacher_system": "S"}))


def test_a_made_row_says_whose_use_is_decided() -> None:
    mapping = {"prompt": "{{ question }}", "system": "", "teacher_prompt": {"math": "{{ answer }}"}, "teacher": "math"}
    row = parse_row(RawRow.of(LINES, 1, ROW), "1", RowFormat.of(mapping, TEACHERS, "kind"))
    assert row.mapped == {"question", "answer", "system"}
    assert row.messages[0].content == "Why?"


def test_what_the_teacher_reads() -> None:
    both = {"prompt": "{{ question }}", "system": "S"}
    privileged = {**both, "teacher_prompt": "{{ question }} {{ answer }}"}
    assert made(privileged)["teacher_messages"] == [system("S"), user("Why? So.")]
    assert made({**privileged, "teacher_system": "T"})["teacher_messages"] == [system("T"), user("Why? So.")]
    assert made({**both, "teacher_system": "T"})["teacher_messages"] == [system("T"), user("Why?")]
    assert made({"prompt": "x", "teacher_system": "T"})["teacher_messages"] == [system("T"), user("x")]
    assert made({**both, "teacher_messages": [user("{{ answer }}")]})["teacher_messages"] == [user("So.")]
    own = {**both, "teacher_prompt": [system("Own"), user("x")]}
    assert made(own)["teacher_messages"] == [system("Own"), user("x")]


def test_a_route_by_another_field_and_prompts_by_route() -> None:
    mapping = {
        "prompt": "{{ question }}",
        "teacher": "{{ kind }}",
        "teacher_prompt": {"math": "{{ answer }}"},
        "teacher_system": {"prose": "Be warm."},
    }
    assert made(mapping, ROW, "domain") == {
        "messages": [user("Why?")],
        "domain": "math",
        "teacher_messages": [user("So.")],
    }
    assert made(mapping, {**ROW, "kind": "prose"}, "domain") == {
        "messages": [user("Why?")],
        "domain": "prose",
        "prose_messages": [system("Be warm."), user("Why?")],
    }


def test_a_route_without_a_template_keeps_the_messages_that_its_rows_hold() -> None:
    mapping = {"prompt": "{{ question }}", "teacher": "{{ kind }}", "teacher_prompt": {"math": "{{ answer }}"}}
    own = [user("Be warm.")]
    found = made(mapping, {**ROW, "kind": "prose", "prose_messages": own}, "domain")
    assert "teacher_messages" not in found
    assert found.get("prose_messages", own) == own
    over = made({**mapping, "teacher_prompt": {"math": ""}}, {**ROW, "teacher_messages": own}, "domain")
    assert over["teacher_messages"] is None


def test_a_row_of_no_known_route_gets_what_all_teachers_read() -> None:
    mapping = {"prompt": "{{ question }}", "teacher": "{{ kind }}", "teacher_prompt": "{{ answer }}"}
    found = made(mapping, {**ROW, "kind": "other"}, "domain")
    assert found["teacher_messages"] == found["prose_messages"] == [user("So.")]
    assert found["domain"] == "other"  # which the router refuses


ANSWERED = [user("Why?"), {"role": "assistant", "content": "So."}]


@pytest.mark.parametrize(
    ("mapping", "row", "fix"),
    [
        (
            {"messages": "{{ conversations | from_sharegpt | without_answer }}"},
            {"conversations": []},
            'data.filter: "conversations | from_sharegpt | without_answer | length > 0" leaves such rows out',
        ),
        (
            {"messages": "{{ conversations | from_sharegpt | without_answer }}"},
            {"conversations": [{"from": "gpt", "value": "So."}]},
            'data.filter: "conversations | from_sharegpt | without_answer | length > 0" leaves such rows out',
        ),
        (
            {"messages": "{{- a or b -}}"},
            {"a": [], "b": []},
            'data.filter: "(a or b) | length > 0" leaves such rows out',
        ),
        ({"prompt": "{{ turns }}"}, {"turns": ANSWERED}, 'data.format: {prompt: "{{ turns | without_answer }}"}'),
        (
            {"messages": "{{ row['my turns'] }}", "system": "S"},
            {"my turns": ANSWERED},
            """data.format: {messages: "{{ row['my turns'] | without_answer }}"}""",
        ),
        (
            {"messages": [user("{{ a }}"), {"role": "assistant", "content": "x"}]},
            {"a": "b"},
            "end the template of data.format.messages by `| without_answer`",
        ),
        ({"prompt": "{{ a }}"}, {"a": None}, """data.filter: "a not in [none, '']" leaves such rows out"""),
        ({"prompt": "{{ a }}\n"}, {"a": ""}, """data.filter: "a not in [none, '']" leaves such rows out"""),
        ({"prompt": "{% if a %}{{ a }}{% endif %}"}, {"a": ""}, ""),
    ],
)
def test_what_to_write_names_what_the_mapping_reads(mapping: dict[str, Any], row: Any, fix: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(RawRow.of(LINES, 1, row), "1", RowFormat.of(mapping))
    assert caught.value.fix == fix
    if fix.startswith("data.filter: "):
        keeps = RowFilter(json.loads(fix.removeprefix("data.filter: ").removesuffix(" leaves such rows out")))
        assert not keeps.keeps(row)
        assert keeps.keeps({name: [{"from": "human", "value": "Why?"}] for name in row})


def test_a_place_in_messages_that_are_made_names_the_columns() -> None:
    shown = {
        "{{ conversations | from_sharegpt }}": "of the column `conversations`",
        "{{ (conversations + more) | from_sharegpt }}": "of the columns `conversations` and `more`",
    }
    row = {"conversations": [{"from": "human", "value": None}], "more": []}
    for template, said in shown.items():
        with pytest.raises(RowError) as caught:
            parse_row(RawRow.of(LINES, 1, row), "1", RowFormat.of({"messages": template}))
        assert str(caught.value) == (
            f"messages[0].content: is a JSON null, not text (data.format.messages makes the messages {said})"
        )


@pytest.mark.parametrize("template", ["{{ n }}", "{{ n + 1 }}"])
def test_the_text_of_a_number_is_what_is_advised(template: str) -> None:
    said = refused({"prompt": template}, {"n": 0})
    advised = said.rpartition("; write `")[2].removesuffix("`")
    assert made({"prompt": advised}, {"n": 0}) == {"messages": [user("1" if "+" in template else "0")]}


def test_what_to_write_for_what_teachers_read() -> None:
    with pytest.raises(RowError) as caught:
        parse_messages(ANSWERED, "teacher_messages")
    assert caught.value.fix == (
        'data.format: {teacher_messages: "{{ teacher_messages | without_answer }}"}; if the config has a template for '
        "`teacher_messages` or `teacher_prompt`, end that by `| without_answer`"
    )
