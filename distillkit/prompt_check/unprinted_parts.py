"""Which parts of a row its chat template does not print.

Templates drop what they do not know without a word: tools, a role, the reasoning of earlier turns. What the prompt is
another one without is refused; what templates may well leave out is counted. A row is rendered once with a word of its
own in each part: the words in the prompt are those of parts that are printed. A part whose word is not there, or that
can have none, is exchanged for something else alone: if the prompt stays what it was, the part is not in it.
"""

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from distillkit.data.render import PromptSide, render_side
from distillkit.data.template_options import OPTIONS, PARSERS
from distillkit.errors import RowError
from distillkit.prompt_check.changed_value import other_value
from distillkit.prompt_check.prompt_parts import Part, parts_of
from distillkit.prompt_check.prompt_shape import context_of, kinds_of, options_shape
from distillkit.prompt_check.row_value import Options, Path, as_row, from_row, get, put, thawed
from distillkit.tokenizer import template_variables
from distillkit.types import Messages

WORD = re.compile("zq[0-9]{5}qz")
"""Nine letters and digits, as some templates want of the ids of calls."""


@dataclass(frozen=True, slots=True)
class Unprinted:
    """What of a row is not in its prompt."""

    needed: Part | None = None
    """The first part that the prompt is another one without."""
    left_out: frozenset[str] = frozenset()
    """The kinds of the other parts."""


@dataclass(slots=True)
class UnprintedParts:
    """What one side's template leaves out; rows of one shape are looked at once."""

    side: PromptSide
    _read: frozenset[str] | None = field(init=False)
    """The names that the template reads; None where that is not known."""
    _of_shape: dict[int, Unprinted] = field(default_factory=dict)
    """By a hash of the shape, since a shape may be long, and there may be as many as rows."""
    _is_printed: dict[Hashable, bool] = field(default_factory=dict)
    """Of parts whose word was not found, by what decides it."""

    def __post_init__(self) -> None:
        """Ask the tokenizer once."""
        self._read = template_variables(self.side.tokenizer)

    def of(self, messages: Messages, options: Options) -> Unprinted:
        """What of these messages, and of a row's own template options, is not in the prompt."""
        shape = hash((kinds_of(messages), options_shape(options) if options else None))
        found = self._of_shape.get(shape)
        if found is None:
            parts = list(self.parts(messages, options))
            needed = next((part for part in parts if part.needed), None)
            found = Unprinted(needed, frozenset(part.kind for part in parts if not part.needed))
            self._of_shape[shape] = found if needed is not None or found.left_out else ALL_PRINTED
        return found

    def parts(self, messages: Messages, options: Options) -> Iterator[Part]:
        """The parts that are not in the prompt, in their order."""
        parts = [*parts_of(messages, options), *self._switches(options)]
        found = self._with_found_words(parts, messages, options)
        inside = {path[:length] for path in found.values() for length in range(len(path) + 1)}
        doubtful = [
            part
            for i, part in enumerate(parts)
            if i not in found and (part.mark is not None or part.path not in inside)
        ]
        contexts = [context_of(part, messages, options) for part in doubtful]
        unknown = {key: part for key, part in zip(contexts, doubtful, strict=True) if key not in self._is_printed}
        self._is_printed |= zip(
            unknown, self._change_the_prompt([*unknown.values()], parts, messages, options), strict=True
        )
        yield from (part for key, part in zip(contexts, doubtful, strict=True) if not self._is_printed[key])

    def _switches(self, options: Options) -> Iterator[Part]:
        """The row's `chat_template_kwargs` that the template is not known to read: what it reads may print nothing."""
        for name in options.keys() - PARSERS.keys():
            if self._read is None or name not in self._read:
                yield Part((name,), f"`{OPTIONS}.{name}`", False, other_value(thawed(options[name])))

    def _with_found_words(self, parts: Sequence[Part], messages: Messages, options: Options) -> dict[int, Path]:
        """The places of the parts whose word is in the prompt of the row with a word in each part.

        A template that refuses such a row, as it may where a tool answers no call, gets the words in texts alone.
        """
        marked = {f"zq{i:05}qz": (i, part) for i, part in enumerate(parts) if part.mark is not None}
        of_texts = {word: (i, part) for word, (i, part) in marked.items() if not part.is_id}
        for words in (marked, of_texts) if len(of_texts) < len(marked) else (marked,):
            row = as_row(messages, options)
            for word, (_, part) in words.items():
                put(row, part.path, part.marked(get(row, part.path), word))
            (ids,) = render_side(self.side, *_as_chats(row)) if words else ([],)
            if not isinstance(ids, RowError):
                found = WORD.findall(self.side.tokenizer.show(ids))
                return {i: part.path for i, part in (words[word] for word in found if word in words)}
        return {}

    def _change_the_prompt(
        self, doubtful: Sequence[Part], parts: Sequence[Part], messages: Messages, options: Options
    ) -> Iterator[bool]:
        """Whether the prompt is another one with something else in each doubtful part's place; a refusal is another."""
        if not doubtful:
            return
        (as_it_is,) = render_side(self.side, [messages], options)
        for part in doubtful:
            ids = self._with_other([part], part, messages, options)
            if part.is_id and isinstance(ids, RowError):  # the template only compares it with those of calls or answers
                ids = self._with_other([each for each in parts if each.is_id], part, messages, options)
            yield ids != as_it_is

    def _with_other(
        self, places: Sequence[Part], part: Part, messages: Messages, options: Options
    ) -> list[int] | RowError:
        """The prompt with something else for a part, in each of the places where the same stands."""
        row = as_row(messages, options)
        value = get(row, part.path)
        for each in places:
            if get(row, each.path) == value:
                put(row, each.path, part.other)
        (ids,) = render_side(self.side, *_as_chats(row))
        return ids


def _as_chats(row: dict[str, JsonValue]) -> tuple[list[Messages], Options]:
    messages, options = from_row(row)
    return [messages], options


ALL_PRINTED = Unprinted()
"""Of nearly all rows."""
