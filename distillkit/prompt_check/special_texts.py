"""Text of a row that a tokenizer reads as a special token: an end of turn in the middle of a user's message."""

import re
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from distillkit.files.strict_json import walk
from distillkit.tokenizer import Tokenizer
from distillkit.types import Messages


class SpecialTexts:
    """Finds them; nothing where the tokenizer reads such texts as any other."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Which special tokens have a text that becomes them."""
        texts = [text for text, index in tokenizer.special_tokens().items() if index in tokenizer.encode(text)]
        longest_first = sorted(texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if texts else None

    def first_in(self, messages: Messages, options: Mapping[str, JsonValue]) -> str | None:
        """The first special token that stands as text in what a row holds."""
        if self._pattern is None:
            return None
        search = self._pattern.search
        for message in messages:
            if found := search(message.content):
                return found.group()
        return next((found.group() for text in _texts(messages, options) if (found := search(text))), None)


def _texts(messages: Messages, options: Mapping[str, JsonValue]) -> Iterator[str]:
    """All texts but the contents of messages."""
    values = [message.extra for message in messages if message.extra] + ([options] if options else [])
    for value in values:
        yield from (inner for _, inner in walk(dict(value)) if isinstance(inner, str))
