"""Which parts of a row its chat template does not print, found by rendering the row with something else in their place.

Templates drop what they do not know without a word: tools, a role, the reasoning of earlier turns. What the prompt is
another one without is refused; what templates may well leave out is counted.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from distillkit.data.render import PromptSide, render_side
from distillkit.data.template_options import PARSERS
from distillkit.preflight.changed_value import other_value
from distillkit.preflight.prompt_parts import Options, Part, parts_of_message, parts_of_option
from distillkit.preflight.prompt_shape import item_shape, kinds_of, message_contexts, options_shape
from distillkit.tokenizer import template_variables
from distillkit.types import Messages


@dataclass(frozen=True, slots=True)
class Unprinted:
    """A part of a row that is not in the prompt."""

    place: str
    kind: str
    needed: bool


@dataclass(slots=True)
class UnprintedParts:
    """What one side's template leaves out; rows of one shape are looked at once."""

    side: PromptSide
    _read: frozenset[str] | None = field(init=False)
    """The names that the template reads; None where that is not known."""
    _of_shape: dict[Hashable, tuple[Unprinted, ...]] = field(default_factory=dict)
    _of_context: dict[Hashable, tuple[Unprinted, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Ask the tokenizer once."""
        self._read = template_variables(self.side.tokenizer)

    def of(self, messages: Messages, options: Options) -> tuple[Unprinted, ...]:
        """What of these messages, and of a row's own template options, is not in the prompt."""
        kinds, shape = kinds_of(messages), options_shape(options) if options else None
        found = self._of_shape.get((kinds, shape))
        if found is None:
            found = tuple(self._looked_for(messages, options, dict(self._contexts(messages, options))))
            self._of_shape[kinds, shape] = found
        return found

    def _contexts(self, messages: Messages, options: Options) -> Iterator[tuple[Hashable, Sequence[Part]]]:
        """The parts of the row by what decides whether they are printed; of what was seen before, none."""
        given = tuple((name, value if isinstance(value, bool) else bool(value)) for name, value in options.items())
        for at, context in enumerate(message_contexts(kinds_of(messages), given)):
            yield context, () if context in self._of_context else [*parts_of_message(messages, at, options)]
        ends = frozenset(message.role for message in messages), messages[0].role, messages[-1].role
        for name in PARSERS.keys() & options.keys():
            given_items = options[name]
            items = given_items if isinstance(given_items, list) else []
            for at, item in enumerate(items):
                context = name, at, at + 1 == len(items), item_shape(item), ends
                yield context, () if context in self._of_context else [*parts_of_option(name, at, messages, options)]

    def _looked_for(
        self, messages: Messages, options: Options, parts: Mapping[Hashable, Sequence[Part]]
    ) -> Iterator[Unprinted]:
        unknown = [part for context in parts for part in parts[context]]
        printed = dict(zip(map(id, unknown), self._are_printed(unknown, messages, options), strict=True))
        for context, new in parts.items():
            if context not in self._of_context:
                self._of_context[context] = tuple(
                    Unprinted(part.place, part.kind, part.needed) for part in new if not printed[id(part)]
                )
            yield from self._of_context[context]
        yield from self._unread(messages, options)

    def _are_printed(self, parts: Sequence[Part], messages: Messages, options: Options) -> Iterator[bool]:
        """Whether the prompt is another one with something else in each part's place; a refusal is another one."""
        if not parts:
            return
        (as_it_is,) = render_side(self.side, [messages], options)
        for _, group in groupby(parts, key=lambda part: id(part.options)):
            together = list(group)
            rendered = render_side(self.side, [part.messages for part in together], together[0].options)
            yield from (ids != as_it_is for ids in rendered)

    def _unread(self, messages: Messages, options: Options) -> Iterator[Unprinted]:
        """The row's `chat_template_kwargs` that the template does not read; if that is not known, does not print."""
        for name in options.keys() - PARSERS.keys():
            if self._read is None:
                other = Part(name, "", False, messages, {**options, name: other_value(options[name])})
                unread = not all(self._are_printed([other], messages, options))
            else:
                unread = name not in self._read
            if unread:
                yield Unprinted(f"chat_template_kwargs.{name}", f"`chat_template_kwargs.{name}`", needed=False)
