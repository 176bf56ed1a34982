"""The engine's Tokenizer on top of a transformers tokenizer and its chat template. Needs no torch."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import InputError, RowError
from distillkit.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


FOR_THE_TEMPLATE = ("tools", "documents")
"""What `apply_chat_template` takes and hands on to the template, as it does with every name that it does not know."""


class HFTokenizer:
    """A transformers tokenizer, as the engine sees it."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", source: str) -> None:
        """`source` is what errors call it: a directory, or `org/name` on the hub."""
        self.inner = tokenizer
        self.source = source
        self._vocabulary: Mapping[str, int] = tokenizer.get_vocab()

    @classmethod
    def load(cls, source: str) -> "HFTokenizer":
        """Read a tokenizer. Raises InputError if it cannot be had or has no chat template."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)  # None would ask the user
        except (OSError, ValueError) as error:
            raise InputError(unreachable("tokenizer", source, error)) from error
        if not tokenizer.chat_template:
            raise InputError(
                f"the tokenizer of {source!r} has no chat template, so messages cannot be rendered; choose an instruct "
                "model, or a local copy whose tokenizer has `chat_template` set"
            )
        return cls(tokenizer, source)

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        """The ids of the prompt, ending with the template's opening of the assistant's turn.

        Raises:
            InputError: if an option is none of the template's.
            RowError: if the template refuses the messages.
        """
        from jinja2 import TemplateError

        chat: Any = [message.as_dict() for message in messages]
        template_options: dict[str, Any] = dict(options)
        self._require_for_template(template_options)
        try:
            ids: Any = self.inner.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=True, return_dict=False, **template_options
            )
        except (TemplateError, TypeError, ValueError) as error:  # templates compute with what rows and options hold
            raise RowError("messages", f"the chat template of {self.source!r} refuses them: {error}") from error
        return [int(index) for index in ids]

    def _require_for_template(self, options: Mapping[str, object]) -> None:
        taken = inspect.signature(self.inner.apply_chat_template).parameters if options else {}
        wrong = [name for name in options if name in taken and name not in FOR_THE_TEMPLATE]
        if wrong:
            raise InputError(
                f"chat_template_kwargs: {', '.join(wrong)} would change how distillkit renders prompts, not the chat "
                "template; only what the template itself reads belongs there, such as enable_thinking"
            )

    def encode(self, text: str) -> list[int]:
        """The ids of plain text."""
        return [int(index) for index in self.inner.encode(text, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

    def show(self, ids: Sequence[int]) -> str:
        """The text of ids with every special token visible."""
        return str(self.inner.decode(list(ids), skip_special_tokens=False))

    def vocabulary(self) -> Mapping[str, int]:
        """Every token's id."""
        return self._vocabulary

    def special_tokens(self) -> Mapping[str, int]:
        """Added tokens that are marked special."""
        added = self.inner.added_tokens_decoder
        return {str(token.content): int(index) for index, token in added.items() if token.special}

    @property
    def eos_id(self) -> int | None:
        """The id that ends a turn."""
        index = self.inner.eos_token_id
        return None if index is None else int(index)


def shared_tokenizer(run: RunContext, source: str) -> HFTokenizer:
    """The run's one tokenizer for `source`."""
    return run.share(("tokenizer", source), lambda: HFTokenizer.load(source))


def unreachable(what: str, source: str, error: Exception) -> str:
    """Why a model's files cannot be had, and what to do."""
    if "trust_remote_code" in str(error):
        return (
            f"the {what} of {source!r} is made by code that comes with the model, and distillkit runs no such code: "
            "trust_remote_code is off, and no option turns it on. Choose a model whose architecture transformers has "
            "itself, or serve this one and name a tokenizer that transformers has"
        )
    reason = str(error).strip().partition("\n")[0]
    return (
        f"the {what} of {source!r} cannot be read: {reason}. Give a local directory, or `org/name` of a model on the "
        "Hugging Face hub (HF_TOKEN for a gated one; HF_HOME says where its cache is)"
    )
