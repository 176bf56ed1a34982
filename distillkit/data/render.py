"""Messages to token ids: the only place where prompts of student and teacher become tokens.

A response's ids are never rendered or re-tokenized: the student's sampled ids stand behind the teacher's prompt as they
are, `teacher_prompt + response`, so a teacher's logprob at response token t is its logprob at position `P' + t`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.arrays import token_ids
from distillkit.data.template_options import OPTIONS
from distillkit.errors import InputError, RowError
from distillkit.tokenizer import Tokenizer, render_each
from distillkit.types import Messages, Prompts, RoutedRow


@dataclass(frozen=True, slots=True)
class PromptSide:
    """How one side (the student, or one teacher) reads a prompt."""

    tokenizer: Tokenizer
    template_options: Mapping[str, JsonValue]
    context_length: int | None
    """Longest prompt plus completion in tokens; None where the backend does not know."""
    length_limit: str = ""
    """Why it is less than the model's own, and what to do; empty: it is the model's own."""


Reader = str | None
"""A teacher's name; None is the student."""


@dataclass(frozen=True, slots=True)
class RowIds:
    """A row's prompts as lists of ids, from which no array was made yet."""

    student: Sequence[int]
    teachers: Mapping[str, Sequence[int]]

    def by_reader(self) -> Iterator[tuple[Reader, Sequence[int]]]:
        """Each prompt, and who reads it."""
        yield None, self.student
        yield from self.teachers.items()

    @property
    def longest(self) -> int:
        """The tokens of the longest prompt of the row."""
        return max(len(prompt) for _, prompt in self.by_reader())


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders rows' messages for the student and each routed teacher."""

    student: PromptSide
    teachers: Mapping[str, PromptSide]
    max_completion_tokens: int

    def render(self, routed: Sequence[RoutedRow]) -> list[Prompts | RowError]:
        """Each row's prompts, or what is wrong with it, such as a prompt that leaves no room for the completion."""
        return [
            ids if isinstance(ids, RowError) else self.too_long(ids) or _as_arrays(routed_row, ids)
            for routed_row, ids in zip(routed, self.ids(routed), strict=True)
        ]

    def ids(self, routed: Sequence[RoutedRow]) -> list[RowIds | RowError]:
        """The same without arrays, whether there is room or not.

        What sides that read alike are to read is rendered all at once, and once.
        """
        readers = {name: self.first_alike(side) for name, side in self.teachers.items()}
        keys = [_options_key(routed_row.chat.template_options) for routed_row in routed]
        wanted: dict[tuple[Reader, str], dict[int, Messages]] = {}
        for key, routed_row in zip(keys, routed, strict=True):
            wanted.setdefault((None, key), {})[id(routed_row.chat.student)] = routed_row.chat.student
            for name, messages in routed_row.chat.teachers.items():
                wanted.setdefault((readers[name], key), {})[id(messages)] = messages
        options = {key: routed_row.chat.template_options for key, routed_row in zip(keys, routed, strict=True)}
        ids = {
            (reader, key, chat): found
            for (reader, key), chats in wanted.items()
            for chat, found in self._ids(self.side(reader), chats, options[key])
        }
        return [self._row_ids(routed_row, key, ids, readers) for key, routed_row in zip(keys, routed, strict=True)]

    def first_alike(self, side: PromptSide) -> Reader:
        """The first side with this tokenizer and these options."""
        for reader in (None, *self.teachers):
            other = self.side(reader)
            if other.tokenizer is side.tokenizer and other.template_options == side.template_options:
                return reader
        raise AssertionError("a side reads as it does itself")

    def side(self, reader: Reader) -> PromptSide:
        """How the student (None) or a teacher reads."""
        return self.student if reader is None else self.teachers[reader]

    def _ids(
        self, side: PromptSide, chats: Mapping[int, Messages], of_rows: Mapping[str, JsonValue]
    ) -> Iterator[tuple[int, list[int] | RowError]]:
        return zip(chats, render_side(side, list(chats.values()), of_rows), strict=True)

    def _row_ids(
        self,
        routed_row: RoutedRow,
        key: str,
        ids: Mapping[tuple[Reader, str, int], list[int] | RowError],
        readers: Mapping[str, Reader],
    ) -> RowIds | RowError:
        chat = routed_row.chat
        try:
            student = _some(ids[None, key, id(chat.student)], None)
            teachers = {
                name: _some(ids[readers[name], key, id(messages)], name) for name, messages in chat.teachers.items()
            }
        except RowError as error:
            return error
        return RowIds(student, teachers)

    def room(self, reader: Reader) -> int | None:
        """How many tokens a prompt may have that this side reads; None where its context is not known."""
        context = self.side(reader).context_length
        return None if context is None else context - self.max_completion_tokens

    def too_long(self, ids: RowIds) -> RowError | None:
        """The first prompt of a row that leaves no room for the completion."""
        for reader, prompt in ids.by_reader():
            room = self.room(reader)
            if room is not None and len(prompt) > room:
                new = self.max_completion_tokens
                return RowError(
                    field_of(reader),
                    f"{len(prompt)} prompt tokens plus sampling.max_completion_tokens={new} is {len(prompt) + new}, "
                    f"more than the {room + new} that {called(reader)} reads",
                )
        return None


def _some(ids: list[int] | RowError, reader: Reader) -> Sequence[int]:
    if isinstance(ids, RowError):
        raise ids
    if not ids:
        raise RowError(field_of(reader), f"renders to no tokens for {called(reader)}; look at its chat template")
    return ids


def field_of(reader: Reader) -> str:
    """What messages call a prompt by who reads it."""
    return "messages" if reader is None else "teacher prompt"


def called(reader: Reader) -> str:
    """What messages call who reads a prompt."""
    return "the student" if reader is None else f"teacher {reader!r}"


def render_side(
    side: PromptSide, chats: Sequence[Messages], of_rows: Mapping[str, JsonValue]
) -> list[list[int] | RowError]:
    """What one side reads of chats whose rows have these template options, which lie over those of the config."""
    if not of_rows:
        return render_each(side.tokenizer, chats, side.template_options)
    try:
        return render_each(side.tokenizer, chats, {**side.template_options, **of_rows})
    except InputError as error:  # an option that is none of the template's: the config's own were tried before
        problem = RowError(OPTIONS, str(error).removeprefix(f"{OPTIONS}: "))
        problem.__cause__ = error
        return [problem] * len(chats)


def _options_key(options: Mapping[str, JsonValue]) -> str:
    """Rows of one key are rendered together. The order of keys counts, since templates print them in order."""
    return json.dumps(options) if options else ""


def _as_arrays(routed_row: RoutedRow, ids: RowIds) -> Prompts:
    teachers = {name: token_ids(theirs) for name, theirs in ids.teachers.items()}
    return Prompts(routed_row.row, routed_row.route, token_ids(ids.student), teachers)
