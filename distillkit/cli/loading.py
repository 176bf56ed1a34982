"""The words behind a command: config files, overrides, and what users of other tools write in their place."""

import re
from collections.abc import Collection, Sequence
from itertools import zip_longest
from pathlib import Path

from distillkit.config.load import load_config
from distillkit.config.other_names import INSTEAD, key_of
from distillkit.config.parse import PARSERS
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError, suggest
from distillkit.files.strict_json import shortened
from distillkit.registry import Registry

PLAIN_VALUE = re.compile(r"[+-]?[\d.]{1,12}([eE][+-]?\d{1,3})?|true|false|null", re.IGNORECASE)
"""A value that a message may repeat; any other may be a secret."""


def load(arguments: Sequence[str], scripts: list[str], **extra: object) -> tuple[RunConfig, Registry]:
    """Split files from overrides, and load them. Raises InputError."""
    files, overrides = split(arguments)
    if not files:
        raise InputError("name a config file; `distillkit init` writes one to start from")
    return load_config(files, overrides, scripts=scripts, extra=extra)


def split(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files, and overrides. Raises InputError for a key and its value that no `=` joins."""
    problems = [
        f"{shortened(word, 60)}: an override is one word with `=`: {_written(key, following)}"
        for word, following in zip_longest(arguments, arguments[1:], fillvalue="")
        if "=" not in word and not is_file(word) and Path(word).suffix not in PARSERS and (key := _our_key(word))
    ]
    if problems:
        raise InputError("\n".join(problems))
    files = [Path(argument) for argument in arguments if "=" not in argument or is_file(argument)]
    return files, [argument for argument in arguments if Path(argument) not in files]


def require_no_options(words: Sequence[str], known: Collection[str]) -> None:
    """Raise InputError for words that look like options, of a command whose own are `known`: `--learning_rate 1e-4`."""
    problems = []
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        option, equals, value = word.partition("=")
        if not option.startswith("-") or PLAIN_VALUE.fullmatch(word):
            continue
        name = option.lstrip("-").replace("-", "_")
        if key := _our_key(name):
            said = f"keys of a config are written key=value: {_written(key, value if equals else following)}"
        else:
            said = INSTEAD.get(name) or suggest(option, sorted(known))
        problems.append(f"{shortened(option, 60)} is no option of this command; {said}")
    if problems:
        raise InputError("\n".join(problems))


def is_file(argument: str) -> bool:
    """Whether there is a file of this name; not so for an override that is too long for a name."""
    try:
        return Path(argument).is_file()
    except (OSError, ValueError):
        return False


def _our_key(name: str) -> str | None:
    """The key of a config that is meant by a name; None where there is none."""
    if name in RunConfig.model_fields or ("." in name and name.partition(".")[0] in RunConfig.model_fields):
        return name
    return key_of(name)


def _written(key: str, value: str) -> str:
    return f"{key}={value if PLAIN_VALUE.fullmatch(value) else '...'}"
