"""What a model's `config.json` says, which is read without torch and without weights."""

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from distillkit.errors import InputError
from distillkit_builtin.hf_tokenizer import one_line, unavailable
from distillkit_builtin.model_source import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def read_config(source: str) -> "PreTrainedConfig":
    """The config of the model `source`, or of what its adapters are merged into. Read once, until its file changes.

    Raises:
        InputError: if it cannot be read.
    """
    resolved = resolve_model(source)
    try:
        return _read(resolved.base, config_state(resolved.base))
    except InputError as error:
        if not resolved.adapters:
            raise
        raise InputError(f"{error}; {resolved.adapters[0]} says that this is its base model") from error


def config_state(base: str) -> tuple[int, int] | None:
    """What changes when the config of a model in a directory does; None for a model on the hub."""
    try:
        found = (Path(base) / "config.json").stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)
def _read(base: str, state: tuple[int, int] | None) -> "PreTrainedConfig":
    from transformers import AutoConfig

    folder = Path(base)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"the config of {base!r} cannot be read: it has no config.json, so it holds no model")
    if folder.is_file():  # which transformers would take for the config itself
        raise InputError(unavailable("config", base, ValueError()))
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except Exception as error:  # a config class computes with what the file says, and raises whatever comes of it
        raise InputError(unavailable("config", base, error)) from error
    _require_json(folder / "generation_config.json")
    return config


def _require_json(path: Path) -> None:
    """Raise InputError for a file that is no JSON. transformers goes on without it: with other ends of a completion."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}") from error


def context_length(source: str) -> int | None:
    """`max_position_embeddings` in tokens, or None where the config has none. Raises InputError as `read_config`."""
    return _number(source, "max_position_embeddings")


def embedding_rows(source: str) -> int | None:
    """How many token ids the model knows, or None where its config does not say. Raises InputError as `read_config`."""
    return _number(source, "vocab_size")


def _number(source: str, name: str) -> int | None:
    value = getattr(read_config(source).get_text_config(), name, None)
    return None if value is None else int(value)
