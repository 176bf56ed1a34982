"""What the processes of one run must have alike: each reads config and scripts itself, perhaps on a disk of its own."""

import hashlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.frozen import FrozenDict
from distillkit.run_directory.settings import settings_of

OF_ONE_HOST = re.compile(r"data\..*|(student|teachers\.\d+)\.(model|adapter|tokenizer_model)")
"""Keys of what rank 0 alone reads, and of where a host has a model, whose content is compared by whoever loads it."""


def must_agree(config: RunConfig) -> FrozenDict[str, JsonValue]:
    """Every option that numbers depend on, by its key, and digests of code that ranks other than 0 run too.

    That is the code of scripts, of the student and of the loss. Raises InputError if it cannot be read.
    """
    options = {key: value for key, value in settings_of(config).items() if OF_ONE_HOST.fullmatch(key) is None}
    return FrozenDict({**options, **{f"the code of {name}": _digest(path) for name, path in _code(config)}})


def _code(config: RunConfig) -> Iterator[tuple[str, Path]]:
    for index, script in enumerate(config.plugins):
        yield f"plugins.{index} ({Path(script).name})", Path(script)
    for plugin in (config.student, config.loss):
        module = inspect.getmodule(type(plugin))
        file = None if module is None else getattr(module, "__file__", None)
        if file is not None:  # else it was typed into a notebook
            yield f"{plugin.role} {plugin.name!r}", Path(file)


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
