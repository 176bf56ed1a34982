"""What a model with towers for pictures or sound needs beside weights and tokenizer: how those are read.

A server does not load such a model without them, also where it is asked for text alone.
"""

import shutil
from pathlib import Path

from distillkit_builtin.hub import hub_options
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.model_source import resolve_model

PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)
"""As transformers names them."""


def copy_processor_files(source: str, folder: Path) -> None:
    """Copy into `folder` those that the model `source` has, as they are; none of a model for text alone."""
    if has_other_senses(source):
        base = resolve_model(source).base
        for name in PROCESSOR_FILES:
            found = _found(base, name)
            if found is not None:
                shutil.copyfile(found, folder / name)


def has_other_senses(source: str) -> bool:
    """Whether the model has parts for pictures or sound, by its config. Raises InputError as `read_config`."""
    parts = read_config(source).sub_configs
    return any(not name.startswith(("text", "decoder", "generator")) for name in parts)


def _found(base: str, name: str) -> Path | None:
    """The file in the model's directory, or in the cache of the hub, fetched if it is not there yet."""
    folder = Path(base)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(
            base,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **hub_options(),
        )
    except (OSError, ValueError):
        return None
    return None if found is None else Path(found)
