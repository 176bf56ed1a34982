"""A model's tokenizer, as far as a server needs it. Needs transformers, and no torch."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from distillkit.errors import InputError


class HFTokenizer:
    """Text to ids and back."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """`load` reads one from a directory or the hub."""
        self._tokenizer = tokenizer
        self._shown: dict[int, str] = {}

    @classmethod
    def load(cls, source: str) -> "HFTokenizer":
        """The tokenizer of a directory or hub name. Raises InputError if it cannot be read."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(unreadable_message("tokenizer", source, error)) from error
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, without the special tokens that a tokenizer may put around it."""
        return [int(index) for index in self._tokenizer.encode(text, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def show(self, ids: Sequence[int]) -> str:
        """The text of ids with every special token visible; that of a single id is computed once."""
        if len(ids) != 1:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))
        (index,) = ids
        if index not in self._shown:
            self._shown[index] = str(self._tokenizer.decode([index], skip_special_tokens=False))
        return self._shown[index]

    def special_id(self, text: str) -> int | None:
        """The id of a special token; None for a text that is none."""
        added = self._tokenizer.added_tokens_decoder
        return next((index for index, token in added.items() if token.special and token.content == text), None)

    @property
    def eos_id(self) -> int | None:
        """The id that ends a turn; None for a tokenizer without one."""
        index = self._tokenizer.eos_token_id
        return None if index is None else int(index)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into `folder`."""
        self._tokenizer.save_pretrained(folder)


def unreadable_message(what: str, source: str, error: Exception) -> str:
    """The error's message for a model or tokenizer that cannot be read: its reason, and what to give instead."""
    reason = str(error).strip().partition("\n")[0]
    return (
        f"the {what} of {source!r} cannot be read: {reason}. Give a local directory, or `org/name` of a model on the "
        "Hugging Face hub"
    )
