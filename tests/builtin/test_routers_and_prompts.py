import json
from dataclasses import replace

import pytest

from distillkit.errors import InputError, RowError
from distillkit.testing import check_plugin, make_row, make_teacher
from distillkit.types import Route
from distillkit_builtin.prompts import MessagesPrompts
from distillkit_builtin.routers import FieldRouter, SingleRouter

TEACHERS = [make_teacher("math"), make_teacher("prose")]
PRIVILEGED = [{"role": "user", "content": "with the answer"}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "teacher: is missing; the router needs it. Known: math, prose"),
        ({"teacher": 5}, "teacher: is 5, not a string"),
        ({"teacher": None}, "teacher: is None, not a string"),
        ({"teacher": "mth"}, "teacher: no teacher has the route value 'mth'; did you mean 'math'?"),
    ],
)
def test_field_refuses_what_it_cannot_route(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RowError) as caught:
        FieldRouter().route(make_row(**fields), TEACHERS)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_field_reads_the_key_that_it_is_told() -> None:
    assert FieldRouter(route_key="by").route(make_row(by="prose"), TEACHERS) == Route.to("prose")


def test_single_is_for_one_teacher() -> None:
    assert SingleRouter().route(make_row(), TEACHERS[:1]) == Route.to("math")
    with pytest.raises(InputError, match="there are 2; use `router: field`"):
        SingleRouter().route(make_row(), TEACHERS)


def test_the_teacher_reads_its_own_messages_and_the_student_never_does() -> None:
    row = make_row("plain", teacher_messages=PRIVILEGED)
    chat = MessagesPrompts().build(row, Route.to("math"), TEACHERS)
    assert chat.student[0].content == "plain"
    assert chat.teachers["math"][0].content == "with the answer"
    assert not chat.fallbacks


def test_each_teacher_may_have_a_key_of_its_own() -> None:
    mine = replace(TEACHERS[0], messages_key="math_messages", missing_messages="error")
    row = make_row("plain", math_messages=PRIVILEGED, teacher_messages=[{"role": "user", "content": "not mine"}])
    assert MessagesPrompts().build(row, Route.to("math"), [mine]).teachers["math"][0].content == "with the answer"


@pytest.mark.parametrize("fields", [{}, {"teacher_messages": None}, {"teacher_messages": []}, {"teacher_messages": ""}])
def test_absent_null_and_empty_are_missing(fields: dict[str, object]) -> None:
    row = make_row("plain", **fields)  # type: ignore[arg-type]
    chat = MessagesPrompts().build(row, Route.to("math"), TEACHERS)
    assert chat.teachers["math"] == row.messages
    assert chat.fallbacks == {"math"}
    strict = [replace(TEACHERS[0], missing_messages="error")]
    with pytest.raises(RowError, match="teacher_messages: is missing, and teacher 'math' needs it"):
        MessagesPrompts().build(row, Route.to("math"), strict)


def test_json_text_of_messages_is_what_it_holds() -> None:
    row = make_row("plain", teacher_messages=" " + json.dumps(PRIVILEGED))
    assert MessagesPrompts().build(row, Route.to("math"), TEACHERS).teachers["math"][0].content == "with the answer"


@pytest.mark.parametrize("value", ["text", [{"role": "user"}], {"role": "user", "content": "x"}, 0, False, "[", "{}"])
def test_malformed_teacher_messages_are_an_error_and_no_fallback(value: object) -> None:
    with pytest.raises(RowError, match="teacher_messages"):
        MessagesPrompts().build(make_row(teacher_messages=value), Route.to("math"), TEACHERS)  # type: ignore[arg-type]


def test_they_keep_their_contracts() -> None:
    check_plugin(FieldRouter())
    check_plugin(SingleRouter(), teachers=TEACHERS[:1])
    check_plugin(MessagesPrompts())
