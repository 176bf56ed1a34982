"""What ends a turn of a model: read from its configs, and from what its chat template writes behind an answer."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit_builtin.hub import hub_options
from distillkit_builtin.template_variables import template_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER = "Certainly"
"""An answer that templates leave as it is, and that no other part of a prompt holds."""
CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": ANSWER}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": ANSWER},
    ],
)
"""Tried in this order: some templates refuse a system message, others a chat without one."""
CONFIGS = ("generation_config.json", "config.json")


def template_end(
    tokenizer: "PreTrainedTokenizerBase", options: Mapping[str, JsonValue], eos: Collection[int]
) -> int | None:
    """The first special token, or EOS id, that the chat template writes behind an answer; None if it writes none."""
    texts = (_rendered(tokenizer, chat, options) for chat in CHATS)
    text = next((text for text in texts if ANSWER in text), None)
    if text is None:
        return None
    behind: list[int] = tokenizer.encode(text.rpartition(ANSWER)[2], add_special_tokens=False)
    ends = {*eos, *(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)}
    return next((int(index) for index in behind if index in ends), None)


def _rendered(
    tokenizer: "PreTrainedTokenizerBase", chat: list[dict[str, str]], options: Mapping[str, JsonValue]
) -> str:
    """The chat's text; empty where the template refuses it."""
    template_options: dict[str, Any] = dict(options)
    try:
        return str(tokenizer.apply_chat_template(chat, add_generation_prompt=False, tokenize=False, **template_options))
    except template_errors():
        return ""


def eos_ids_in(source: str) -> Iterator[int]:
    """The EOS ids that `generation_config.json` and `config.json` of a model name, as far as it has these files.

    As they stand there: where a file names none, transformers' classes have one of their own, whatever token that is.

    Raises:
        InputError: for a file that is not JSON, or an EOS id that is no number.
    """
    from transformers.utils.hub import cached_file

    for name in CONFIGS:
        try:
            path = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **hub_options())
        except OSError:  # its tokenizer could be had; whoever loads the model says what is wrong with it
            continue
        if path is not None:
            yield from _eos_ids(path)


def _eos_ids(path: str) -> Iterator[int]:
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    for part in (config, config.get("text_config") if isinstance(config, dict) else None):
        named = part.get("eos_token_id") if isinstance(part, dict) else None
        for index in named if isinstance(named, list) else [named]:
            if index is not None and type(index) is not int:
                raise InputError(f"{path}: eos_token_id holds {index!r}, which is no token id")
            if index is not None and index >= 0:  # -1 means none
                yield index
