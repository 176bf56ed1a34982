"""Messages to token ids: the only place where prompts of student and teacher become tokens.

A response's ids are never rendered or re-tokenized: the student's sampled ids stand behind the teacher's prompt as they
are, `teacher_prompt + response`, so a teacher's logprob at response token t is its logprob at position `P' + t`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.arrays import token_ids
from distillkit.errors import RowError
from distillkit.tokenizer import Tokenizer, render_each
from distillkit.types import ChatPrompts, Messages, Prompts, Route, Row, Teacher


@dataclass(frozen=True, slots=True)
class PromptSide:
    """How one side (the student, or one teacher) reads a prompt."""

    tokenizer: Tokenizer
    template_options: Mapping[str, JsonValue]
    context_length: int | None
    """Longest prompt plus completion in tokens; None where the backend does not know."""


Reader = str | None
"""A teacher's name; None is the student."""


@dataclass(frozen=True, slots=True)
class RoutedRow:
    """A row, who scores it, and what each side reads."""

    row: Row
    route: Route
    chat: ChatPrompts


@dataclass(frozen=True, slots=True)
class RowIds:
    """A row's prompts as lists of ids, from which no array was made yet."""

    student: Sequence[int]
    teachers: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders rows' messages for the student and each routed teacher."""

    student: PromptSide
    teachers: Mapping[str, PromptSide]
    max_completion_tokens: int

    def render(self, routed: Sequence[RoutedRow]) -> list[Prompts | RowError]:
        """Each row's prompts, or what is wrong with it, such as a prompt that leaves no room for the completion."""
        rendered = zip(routed, self.ids(routed), strict=True)
        return [
            found if isinstance(found, RowError) else _as_arrays(routed_row, found) for routed_row, found in rendered
        ]

    def ids(self, routed: Sequence[RoutedRow]) -> list[RowIds | RowError]:
        """The same without arrays. What sides that read alike are to read is rendered all at once, and once."""
        readers = {name: self._first_alike(side) for name, side in self.teachers.items()}
        wanted: dict[Reader, dict[int, Messages]] = {}
        for routed_row in routed:
            wanted.setdefault(None, {})[id(routed_row.chat.student)] = routed_row.chat.student
            for name, messages in routed_row.chat.teachers.items():
                wanted.setdefault(readers[name], {})[id(messages)] = messages
        ids = {(reader, chat): found for reader, chats in wanted.items() for chat, found in self._ids(reader, chats)}
        return [self._row_ids(routed_row, ids, readers) for routed_row in routed]

    def _first_alike(self, side: PromptSide) -> Reader:
        """The first side with this tokenizer and these options."""
        for reader in (None, *self.teachers):
            other = self._side(reader)
            if other.tokenizer is side.tokenizer and other.template_options == side.template_options:
                return reader
        raise AssertionError("a side reads as it does itself")

    def _side(self, reader: Reader) -> PromptSide:
        return self.student if reader is None else self.teachers[reader]

    def _ids(self, reader: Reader, chats: Mapping[int, Messages]) -> Iterator[tuple[int, list[int] | RowError]]:
        side = self._side(reader)
        return zip(chats, render_each(side.tokenizer, list(chats.values()), side.template_options), strict=True)

    def _row_ids(
        self,
        routed_row: RoutedRow,
        ids: Mapping[tuple[Reader, int], list[int] | RowError],
        readers: Mapping[str, Reader],
    ) -> RowIds | RowError:
        chat = routed_row.chat
        try:
            return RowIds(
                self._fitting(self.student, ids[None, id(chat.student)], "messages", "the student"),
                {
                    name: self._fitting(
                        self.teachers[name], ids[readers[name], id(messages)], "teacher prompt", f"teacher {name!r}"
                    )
                    for name, messages in chat.teachers.items()
                },
            )
        except RowError as error:
            return error

    def _fitting(self, side: PromptSide, ids: list[int] | RowError, field: str, reader: str) -> Sequence[int]:
        if isinstance(ids, RowError):
            raise ids
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


def _as_arrays(routed_row: RoutedRow, ids: RowIds) -> Prompts:
    teachers = {name: token_ids(theirs) for name, theirs in ids.teachers.items()}
    return Prompts(routed_row.row, routed_row.route, token_ids(ids.student), teachers)


def teacher_prompt_side(
    teacher: Teacher, tokenizer: Tokenizer, context_length: int | None, student: PromptSide
) -> PromptSide:
    """How a teacher reads: with its own template options, or the student's where it has none."""
    options = student.template_options if teacher.chat_template_kwargs is None else teacher.chat_template_kwargs
    return PromptSide(tokenizer, options, context_length)
