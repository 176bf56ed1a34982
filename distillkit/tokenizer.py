"""What the engine needs of a tokenizer, and whether two of them mean the same by their ids."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from pydantic import JsonValue

from distillkit.errors import InputError, RowError
from distillkit.frozen import Value
from distillkit.records import Rollout
from distillkit.types import Message

PROBE = (
    "The quick brown fox, aged 3.14159, can't  jump\tover 1,234,567 lazy dogs!\n\n"
    "def f(x): return x**2  # naïve café — Здравствуй 你好 مرحبا 🦊\r\n<think> 00012 </think>"
)
"""Text whose encoding shows differences in merges, normalisation, digits and whitespace."""


@dataclass(frozen=True, slots=True)
class TurnEnds(Value):
    """What ends the assistant's turn, as far as a tokenizer and the files beside it say."""

    template: int | None
    """The special token that the chat template writes behind an answer; None: no such token can be seen."""
    eos: tuple[int, ...] = ()
    """The ids at which the model ends a completion by itself, the tokenizer's own first."""

    @property
    def own(self) -> tuple[int, ...]:
        """What a turn of this model ends with: the template's token; where none can be seen, any of the EOS ids."""
        return self.eos if self.template is None else (self.template,)


class Tokenizer(Protocol):
    """The engine's view of a tokenizer; backends supply it."""

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        """The ids of a chat prompt that ends where the assistant's answer begins; `options` go to the template."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, without special tokens around it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        ...

    def show(self, ids: Sequence[int]) -> str:
        """The text of ids with every special token visible."""
        ...

    def vocabulary(self) -> Mapping[str, int]:
        """Every token's id, added tokens too."""
        ...

    def special_tokens(self) -> Mapping[str, int]:
        """The ids of the tokens that stand for more than their text (`<|im_end|>`, ...)."""
        ...

    def turn_ends(self, options: Mapping[str, JsonValue]) -> TurnEnds:
        """What ends the assistant's turn, where `options` go to the template."""
        ...


@runtime_checkable
class RendersMany(Protocol):
    """What a Tokenizer may have besides, if many prompts at once take it less time than one after another."""

    def render_many(
        self, chats: Sequence[Sequence[Message]], options: Mapping[str, JsonValue]
    ) -> list[list[int] | RowError]:
        """What `render` gives for each, or the RowError that it raises."""
        ...


@runtime_checkable
class HasTemplateVariables(Protocol):
    """What a Tokenizer may have besides, if it is known which options its chat template reads."""

    def template_variables(self) -> frozenset[str] | None:
        """The names that the template reads, options and others; None where that is not known."""
        ...


def template_variables(tokenizer: Tokenizer) -> frozenset[str] | None:
    """The names that the tokenizer's chat template reads; None where that is not known."""
    return tokenizer.template_variables() if isinstance(tokenizer, HasTemplateVariables) else None


def render_each(
    tokenizer: Tokenizer, chats: Sequence[Sequence[Message]], options: Mapping[str, JsonValue]
) -> list[list[int] | RowError]:
    """Each prompt's ids, or why it has none."""
    if isinstance(tokenizer, RendersMany):
        return tokenizer.render_many(chats, options)
    return [_rendered(tokenizer, messages, options) for messages in chats]


def _rendered(
    tokenizer: Tokenizer, messages: Sequence[Message], options: Mapping[str, JsonValue]
) -> list[int] | RowError:
    try:
        return tokenizer.render(messages, options)
    except RowError as error:
        return error


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id of `tokenizer`."""
    return max(tokenizer.vocabulary().values()) + 1


def unknown_id(rollout: Rollout, vocabulary: int | None) -> str | None:
    """Why a completion holds what is no token of `vocabulary` ids, or None: a scorer would read past its tables.

    A model may have more rows than its tokenizer has tokens and may, however rarely, sample such an id: that is a lost
    completion, not the end of the run.
    """
    if vocabulary is None or rollout.token_ids.view(np.uint64).max() < vocabulary:  # a negative id is a huge one there
        return None
    bad = np.flatnonzero((rollout.token_ids < 0) | (rollout.token_ids >= vocabulary))
    what = f"token {bad[0]} is id {rollout.token_ids[bad[0]]}"
    return f"{rollout.key}: {what}; the student's tokenizer has the ids 0 to {vocabulary - 1}"


def has_end(rollout: Rollout) -> bool:
    """Whether a completion's last token ends its turn: no limit cut it, and no stop string, whose last token is any."""
    ends = rollout.request.params.stop_ids
    return rollout.finish_reason == "stop" and (not ends or int(rollout.token_ids[-1]) in ends)


def wrong_end(rollout: Rollout) -> str | None:
    """Why a completion of the student does not end where it was to end, or None.

    Its params hold every id that ends one. A token that the teacher scores as an end must be one, and be there; where
    the sampler gives tools' output too (`mask`), what ends a turn of several is its own.
    """
    ends, ids = rollout.request.params.stop_ids, rollout.token_ids
    if rollout.mask is not None or not ends:
        return None
    inside = ids[:-1] == ends[0]
    for end in ends[1:]:  # there are few, for which `np.isin` takes four times as long
        inside |= ids[:-1] == end
    if np.count_nonzero(inside):
        first = int(inside.argmax())
        return f"{rollout.key}: goes on behind token {first}, id {ids[first]}, at which it was to end"
    stops = rollout.request.params.stop
    if rollout.finish_reason == "length" or int(ids[-1]) in ends or any(stop in rollout.text for stop in stops):
        return None
    return (
        f"{rollout.key}: was ended by the model or a stop, and its last token, id {ids[-1]}, is no end that the run "
        "knows: if it ends the model's turns, add it to sampling.stop_ids; else the token that ended it was left out"
    )


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """16 hex digits that change when an id's meaning, a special token or the encoding of text changes."""
    content = [
        sorted(tokenizer.vocabulary().items()),
        sorted(tokenizer.special_tokens().items()),
        tokenizer.encode(PROBE),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def first_difference(student: Tokenizer, teacher: Tokenizer) -> str | None:
    """The first way in which the teacher would read the student's ids differently, or None.

    A teacher may know more tokens than the student: ids that the student cannot sample are never scored.
    """
    return (
        _vocabulary_difference(student.vocabulary(), teacher.vocabulary())
        or _special_difference(student.special_tokens(), teacher.special_tokens())
        or _encoding_difference(student, teacher)
    )


def require_compatible(student: Tokenizer, teacher: Tokenizer, teacher_name: str) -> None:
    """Raise InputError with the first difference if the teacher cannot score the student's ids."""
    difference = first_difference(student, teacher)
    if difference:
        raise InputError(
            f"teacher {teacher_name!r} cannot score the student's token ids: {difference}. "
            "Choose a teacher of the student's model family, with the same tokenizer."
        )


def _vocabulary_difference(student: Mapping[str, int], teacher: Mapping[str, int]) -> str | None:
    for token, index in sorted(student.items(), key=lambda item: item[1]):
        theirs = teacher.get(token)
        if theirs != index:
            where = "not in the teacher's vocabulary" if theirs is None else f"id {theirs} in the teacher's"
            return f"token {token!r} is id {index} in the student's vocabulary and {where}"
    return None


def _special_difference(student: Mapping[str, int], teacher: Mapping[str, int]) -> str | None:
    for token, index in student.items():
        if token not in teacher:
            return f"{token!r} (id {index}) is a special token for the student and plain text for the teacher"
    return None


def _encoding_difference(student: Tokenizer, teacher: Tokenizer) -> str | None:
    ours, theirs = student.encode(PROBE), teacher.encode(PROBE)
    if ours == theirs:
        return None
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    shown = [tokenizer.decode(ids[at : at + 1]) for tokenizer, ids in ((student, ours), (teacher, theirs))]
    return f"a text is encoded differently: token {at} is {shown[0]!r} for the student, {shown[1]!r} for the teacher"
