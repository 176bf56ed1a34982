"""A tokenizer that needs no file: a token a byte."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from distillkit.tokenizer import TurnEnds
from distillkit.types import Message

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


class ByteTokenizer:
    """UTF-8 bytes are ids 0 to 255, then a start and an end of turn. The chat template is ChatML."""

    turn_start = 256
    turn_end = 257
    size = 258

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        """Each turn is `<|im_start|>role`, its content, `<|im_end|>`; then the assistant's is opened."""
        ids: list[int] = []
        for message in messages:
            ids += [self.turn_start, *self.encode(f"{message.role}\n{message.content}"), self.turn_end, 10]
        return [*ids, self.turn_start, *self.encode("assistant\n")]

    def encode(self, text: str) -> list[int]:
        """The bytes of `text`."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without turn marks; bytes that are no UTF-8 become U+FFFD."""
        return bytes(index for index in ids if index < self.turn_start).decode(errors="replace")

    def show(self, ids: Sequence[int]) -> str:
        """The text of ids with turn marks."""
        marks = {self.turn_start: TURN_START.encode(), self.turn_end: TURN_END.encode()}
        return b"".join(marks.get(index) or bytes([index]) for index in ids).decode(errors="replace")

    def vocabulary(self) -> Mapping[str, int]:
        """Every token's id."""
        return {**{f"<0x{byte:02X}>": byte for byte in range(256)}, **self.special_tokens()}

    def special_tokens(self) -> Mapping[str, int]:
        """The two turn marks."""
        return {TURN_START: self.turn_start, TURN_END: self.turn_end}

    def turn_ends(self, options: Mapping[str, JsonValue]) -> TurnEnds:
        """The mark of a turn's end, both by the template and as the only EOS id."""
        return TurnEnds(self.turn_end, (self.turn_end,))
