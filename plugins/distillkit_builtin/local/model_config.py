"""What a model's `config.json` says, which is read without torch and without weights."""

import copy
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING

from distillkit.errors import InputError
from distillkit_builtin.hf_tokenizer import unavailable

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

KINDS_OF_CACHE = ("layer_types", "sliding_window", "attention_chunk_size")
"""What transformers reads of any config to choose how much of a sequence a layer's cache keeps."""


@lru_cache(maxsize=16)
def read_config(source: str) -> "PreTrainedConfig":
    """The config of the model `source`. Cached, because nothing in it depends on the run.

    Raises:
        InputError: if it cannot be read.
    """
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(unavailable("config", source, error)) from error
    return config


def declared_text_config(config: "PreTrainedConfig") -> "PreTrainedConfig":
    """The part of a config that its language model reads: without values in the file that its class does not have.

    A Llama's config.json may say `sliding_window`, left over from another architecture. Its layers ignore that, and
    transformers' caches do not: they would forget what stands before the window.
    """
    declared = copy.copy(config.get_text_config(decoder=True))
    known = {field.name for field in fields(type(declared))}
    for name in KINDS_OF_CACHE:
        if name not in known and name in vars(declared):
            delattr(declared, name)
    return declared


def context_length(source: str) -> int | None:
    """Tokens that the local backend reads, or None where the config does not say. Raises InputError as `read_config`.

    `max_position_embeddings`, or less where a longer sequence would be computed in another way: see `length_limit`.
    """
    length = getattr(read_config(source).get_text_config(), "max_position_embeddings", None)
    limit = length_limit(source)
    lengths = [int(length)] if length is not None else []
    return min([*lengths, *([limit.tokens] if limit else [])], default=None)


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """Up to which length a token's logprob depends on nothing but the tokens before it."""

    tokens: int
    why: str


def length_limit(source: str) -> LengthLimit | None:
    """Of the model `source`; None for most. Raises InputError as `read_config`.

    transformers chooses the factors of a longrope by the longest sequence of a batch, and those of sparse attention
    see every token of it. So what crosses the border would have logprobs that depend on its batch, and on what it is
    still to become.
    """
    config = read_config(source).get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [
        LengthLimit(int(each["original_max_position_embeddings"]), "its rotary embedding (longrope) is another one")
        for each in (rope, *(value for value in rope.values() if isinstance(value, dict)))
        if each.get("rope_type") == "longrope"
    ]
    topk = getattr(config, "index_topk", None)
    if isinstance(topk, int):
        limits.append(LengthLimit(topk, "its sparse attention (index_topk) reads what stands behind a token"))
    return min(limits, key=lambda limit: limit.tokens, default=None)
