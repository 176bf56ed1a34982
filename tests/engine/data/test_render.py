"""Many rows are rendered together as each would be by itself, and nothing is rendered twice."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from pydantic import JsonValue

from distillkit.data.render import PromptSide, Renderer, RoutedRow
from distillkit.errors import RowError
from distillkit.testing import ByteTokenizer, make_row
from distillkit.types import ChatPrompts, Message, Messages, Prompts, Route


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
    (problem,) = renderer.render([routed("long " * 20, "refused")])
    assert "the student reads" in str(problem)
