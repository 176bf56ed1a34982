"""Many rows are rendered together as each would be by itself, and nothing is rendered twice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from pydantic import JsonValue

from distillkit.data.render import PromptSide, Renderer
from distillkit.errors import InputError, RowError
from distillkit.testing import ByteTokenizer, make_row
from distillkit.types import ChatPrompts, Message, Messages, Prompts, Route, RoutedRow


class Counting(ByteTokenizer):
    """Remembers what it rendered; refuses messages that say `refused`."""

    def __init__(self) -> None:
        self.rendered: list[str] = []

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        self.rendered.append(messages[-1].content)
        if messages[-1].content == "refused":
            raise RowError("messages", "the chat template refuses them")
        return [*super().render(messages, options), *(7 for _ in options)]


def routed(content: str, privileged: str | None = None, teacher: str = "a") -> RoutedRow:
    row = make_row(content)
    theirs: Messages = row.messages if privileged is None else (Message("user", privileged),)
    return RoutedRow(row, Route.to(teacher), ChatPrompts(row.messages, {teacher: theirs}))


@pytest.fixture
def tokenizer() -> Counting:
    return Counting()


@pytest.fixture
def renderer(tokenizer: Counting) -> Renderer:
    side = PromptSide(tokenizer, {}, 80)
    return Renderer(side, {"a": replace(side, context_length=100), "b": replace(side, template_options={"x": 1})}, 10)


def test_what_student_and_teacher_both_read_is_rendered_once(renderer: Renderer, tokenizer: Counting) -> None:
    (prompts,) = renderer.render([routed("same")])
    assert isinstance(prompts, Prompts)
    assert prompts.teachers["a"].tolist() == prompts.student.tolist()
    assert tokenizer.rendered == ["same"]


def test_other_options_or_messages_are_rendered_by_themselves(renderer: Renderer, tokenizer: Counting) -> None:
    first, second = renderer.render([routed("one", teacher="b"), routed("two", "two, and the answer")])
    assert isinstance(first, Prompts)
    assert isinstance(second, Prompts)
    assert first.teachers["b"].tolist() == [*first.student.tolist(), 7]
    assert len(second.teachers["a"]) == len(second.student) + len(", and the answer")
    assert sorted(tokenizer.rendered) == ["one", "one", "two", "two, and the answer"]


def test_one_bad_row_among_many_is_told_alone_and_as_it_would_be_by_itself(renderer: Renderer) -> None:
    rows = [
        routed("fine"),
        routed("refused"),
        routed("long " * 20),
        routed("fine too", "long " * 20),
        routed("fine three", "refused"),
        routed("last"),
    ]
    together = renderer.render(rows)
    assert [type(one) for one in together] == [Prompts, RowError, RowError, RowError, RowError, Prompts]
    told = [str(one) for one in together if isinstance(one, RowError)]
    assert told == [str(renderer.render([row])[0]) for row in rows[1:5]]
    assert "messages: the chat template refuses them" in told[0]
    assert "more than the 80 that the student reads" in told[1]
    assert "more than the 100 that teacher 'a' reads" in told[2]


def test_of_two_bad_prompts_the_students_is_told(renderer: Renderer) -> None:
    (problem,) = renderer.render([routed("long " * 20, "longer " * 20)])
    assert "the student reads" in str(problem)


def test_a_prompt_that_cannot_be_made_is_told_before_one_that_is_too_long(renderer: Renderer) -> None:
    (problem,) = renderer.render([routed("long " * 20, "refused")])
    assert str(problem) == "messages: the chat template refuses them"


class Optional(Counting):
    """Writes its options into the prompt."""

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        return [*super().render(messages, options), *json.dumps(dict(options)).encode()]


def test_rows_with_options_of_their_own_are_rendered_together_as_each_by_itself() -> None:
    side = PromptSide(Optional(), {"x": 0, "y": 0}, None)
    renderer = Renderer(side, {"a": side, "b": replace(side, template_options={"x": 5})}, 10)
    shared: Messages = (Message("user", "a prompt that a builder gives to all"),)
    rows = [
        RoutedRow(row, Route.to(teacher), ChatPrompts(shared, {teacher: shared}, template_options=options))
        for row, options in ((make_row(line=i), options) for i, options in enumerate(({}, {"x": 1}, {"x": 2}, {})))
        for teacher in "ab"
    ]
    together = renderer.ids(rows)
    assert together == [renderer.ids([row])[0] for row in rows]
    shown = [
        bytes(found.teachers[name][-16:])
        for found in together
        if not isinstance(found, RowError)
        for name in found.teachers
    ]
    assert [text.partition(b"{")[2] for text in shown] == [
        *(b'"x": 0, "y": 0}', b'"x": 5}', b'"x": 1, "y": 0}', b'"x": 1}'),
        *(b'"x": 2, "y": 0}', b'"x": 2}', b'"x": 0, "y": 0}', b'"x": 5}'),
    ]


class Refusing(ByteTokenizer):
    """Takes no options."""

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        if options:
            raise InputError("chat_template_kwargs: they are none of the template's")
        return super().render(messages, options)


def test_options_that_are_refused_are_a_rows_own_fault_if_it_gave_them() -> None:
    fine, wrong = (
        RoutedRow(make_row(), Route.to("a"), ChatPrompts(make_row().messages, {}, template_options=options))
        for options in ({}, {"x": 1})
    )
    renderer = Renderer(PromptSide(Refusing(), {}, None), {}, 1)
    first, second = renderer.ids([fine, wrong])
    assert not isinstance(first, RowError)
    assert str(second) == "chat_template_kwargs: they are none of the template's"
    with pytest.raises(InputError, match="they are none of the template's"):
        Renderer(PromptSide(Refusing(), {"x": 1}, None), {}, 1).ids([fine])
