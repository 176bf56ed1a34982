"""What a model's `config.json` says, which is read without torch and without weights."""

from functools import lru_cache
from typing import TYPE_CHECKING

from distillkit.errors import InputError
from distillkit_builtin.hf_tokenizer import unavailable

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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


def context_length(source: str) -> int | None:
    """`max_position_embeddings` in tokens, or None where the config has none. Raises InputError as `read_config`."""
    length = getattr(read_config(source).get_text_config(), "max_position_embeddings", None)
    return None if length is None else int(length)
