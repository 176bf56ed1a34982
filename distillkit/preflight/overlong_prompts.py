"""Prompts that leave no room for a completion: their one cause, and what would make them fit."""

from collections.abc import Sequence

from distillkit.data.render import PromptSide, Reader, Renderer, RowIds, called
from distillkit.errors import InputError

COMMON_SHARE = 0.5
"""How much of the room for a prompt is filled by what all have in common, that this is said to be the cause."""


def require_room(renderer: Renderer) -> None:
    """Raise InputError if completions alone fill the context of a side, so that every row would be too long."""
    for reader in (None, *renderer.teachers):
        room = renderer.room(reader)
        if room is not None and room < 1:
            new = renderer.max_completion_tokens
            raise InputError(
                f"sampling.max_completion_tokens={new} leaves no room for a prompt: both together would be "
                f"more than the {room + new} that {called(reader)} reads; take fewer{reason(renderer.side(reader))}"
            )


def reason(side: PromptSide) -> str:
    """Why a side reads no more, and what to do, to be put behind a message that ends without a full stop."""
    return f". {side.length_limit}" if side.length_limit else ""


class OverlongPrompts:
    """What rows that are too long have in common, gathered row by row in flat memory."""

    def __init__(self, renderer: Renderer) -> None:
        """No such rows so far."""
        self._rooms = {reader: renderer.room(reader) for reader in (None, *renderer.teachers)}
        self._limits = {reader: renderer.side(reader).length_limit for reader in (None, *renderer.teachers)}
        self._most_new = renderer.max_completion_tokens
        self._rows = 0
        self._fitting = self._most_new
        """How long completions may be so that all rows fit; below 1: none."""
        self._longest = (0, "", "")
        self._common: dict[Reader, list[int]] = {}
        """How the prompts of each side begin that are too long for it."""

    def add(self, place: str, ids: RowIds) -> None:
        """Note one more row that is too long, for whichever side."""
        self._rows += 1
        for reader, prompt in ids.by_reader():
            room = self._rooms[reader]
            if room is None or len(prompt) <= room:
                continue
            self._fitting = min(self._fitting, room + self._most_new - len(prompt))
            self._longest = max(self._longest, (len(prompt), place, called(reader)))
            common = self._common.get(reader)
            self._common[reader] = list(prompt) if common is None else common_start(common, prompt)

    def advice(self, fitting: int) -> list[str]:
        """Lines on the longest prompt, what fits all, and how rows are left out, if `fitting` rows are not too long.

        And why a side reads no more, where that is not its model's own length.
        """
        if not self._rows:
            return []
        tokens, place, reader = self._longest
        rooms = [room for room in self._rooms.values() if room is not None]
        fits = f"sampling.max_completion_tokens={self._fitting} leaves room for all"
        leave_out = f"data.max_prompt_tokens={min(rooms)} leaves out rows that have a longer prompt, and says how many"
        return [
            f"the longest prompt has {tokens:,} tokens ({place}, for {reader}); "
            f"{fits if self._fitting > 0 else 'no sampling.max_completion_tokens leaves room for it'}",
            *self._causes(),
            *dict.fromkeys(limit for reader in self._common if (limit := self._limits[reader])),
            *([leave_out] if fitting else []),
        ]

    def _causes(self) -> list[str]:
        readers: dict[tuple[int, ...], list[str]] = {}
        for reader, common in self._common.items():
            if self._rows > 1 and len(common) >= COMMON_SHARE * (self._rooms[reader] or 0):
                readers.setdefault(tuple(common), []).append(called(reader))
        return [
            f"the first {len(common):,} tokens that {' and '.join(who)} read{'s' if len(who) == 1 else ''} are the "
            "same in all rows that are too long, as a system prompt, tools or examples are: shorten those"
            for common, who in readers.items()
        ]


def common_start(one: list[int], other: Sequence[int]) -> list[int]:
    """The longest start of both."""
    if one == list(other[: len(one)]):  # as nearly always: the rows before have shortened it to what all share
        return one
    length = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]
