"""Messages to token ids: the only place where prompts of student and teacher become tokens.

A response's ids are never rendered or re-tokenized: the student's sampled ids stand behind the teacher's prompt as they
are, `teacher_prompt + response`, so a teacher's logprob at response token t is its logprob at position `P' + t`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.errors import RowError
from distillkit.tokenizer import Tokenizer
from distillkit.types import ChatPrompts, Messages, Prompts, Route, Row, Teacher, token_ids


@dataclass(frozen=True, slots=True)
class Side:
    """How one side (the student, or one teacher) reads a prompt."""

    tokenizer: Tokenizer
    template_options: Mapping[str, JsonValue]
    context_length: int | None
    """Longest prompt plus completion in tokens; None where the backend does not know."""


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders a row's messages for the student and each routed teacher."""

    student: Side
    teachers: Mapping[str, Side]
    max_completion_tokens: int

    def render(self, row: Row, route: Route, chat: ChatPrompts) -> Prompts:
        """The prompts as ids. Raises RowError if one leaves no room for the completion."""
        return Prompts(
            row=row,
            route=route,
            student=token_ids(self._ids(self.student, chat.student, "messages", "the student")),
            teachers={
                name: token_ids(self._ids(self.teachers[name], messages, "teacher prompt", f"teacher {name!r}"))
                for name, messages in chat.teachers.items()
            },
        )

    def _ids(self, side: Side, messages: Messages, field: str, reader: str) -> Sequence[int]:
        ids = side.tokenizer.render(messages, side.template_options)
        if not ids:
            raise RowError(field, f"renders to no tokens for {reader}; look at its chat template")
        needed = len(ids) + self.max_completion_tokens
        if side.context_length is not None and needed > side.context_length:
            raise RowError(
                field,
                f"{len(ids)} prompt tokens plus sampling.max_completion_tokens={self.max_completion_tokens} is "
                f"{needed}, more than the {side.context_length} that {reader} reads",
            )
        return ids


def teacher_side(teacher: Teacher, tokenizer: Tokenizer, context_length: int | None, student: Side) -> Side:
    """How a teacher reads: with its own template options, or the student's where it has none."""
    options = student.template_options if teacher.chat_template_kwargs is None else teacher.chat_template_kwargs
    return Side(tokenizer, options, context_length)
