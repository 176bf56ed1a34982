"""What a model's `config.json` says, which is read without torch and without weights."""

import copy
from dataclasses import fields
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
    """`max_position_embeddings` in tokens, or None where the config has none. Raises InputError as `read_config`."""
    length = getattr(read_config(source).get_text_config(), "max_position_embeddings", None)
    return None if length is None else int(length)
