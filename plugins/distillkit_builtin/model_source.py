"""What a model's name stands for: a whole model, or one into which PEFT adapters are merged. Needs no torch."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from distillkit.errors import InputError
from distillkit_builtin.hub import hub_options

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What transformers loads, in its order; the last two are pickles, which are refused by those who read weights."""
TOKENIZER_CONFIG = "tokenizer_config.json"
BASE = "base_model_name_or_path"
HUB_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "adapter_model.bin", TOKENIZER_CONFIG, "tokenizer.json")
"""What is fetched of an adapter on the hub, as far as it is there."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A whole model, and the adapters that are merged into it."""

    base: str
    """A directory, or `org/name` on the Hugging Face hub."""
    adapters: tuple[Path, ...] = ()
    """Directories of PEFT adapters, in the order in which they are merged."""

    def describe(self) -> str:
        """The base, and what is merged into it, for messages."""
        return self.base + "".join(f" with the adapter {folder} merged into it" for folder in self.adapters)


def resolve_model(name: str) -> ModelSource:
    """What the model `name` is: `student.model` and a teacher's `model` mean the same by it, everywhere.

    A directory or hub name of a whole model is that model. A PEFT adapter is its base model, which its config names
    (and which may be an adapter itself), with the adapter merged into it. A directory with a whole model and an adapter
    is that model with that adapter merged into it.

    Raises:
        InputError: if an adapter does not say what its base model is, or names itself.
    """
    adapters: list[Path] = []
    try:
        while (folder := _adapter_folder(name)) is not None:
            if folder in adapters:
                raise InputError(f"{folder / ADAPTER_CONFIG} names the adapter itself as its base model ({BASE})")
            adapters.insert(0, folder)
            if _is_whole(Path(name)):
                break
            name = adapter_base(folder)
    except OSError as error:  # a directory that may not be read
        raise InputError(f"the model {name!r} cannot be read: {error}") from error
    return ModelSource(name, tuple(adapters))


def adapter_base(folder: Path) -> str:
    """The directory or hub name of an adapter's base model. Raises InputError if its config does not say, or cannot."""
    config = read_adapter_config(folder)
    base = config.get(BASE)
    where = folder / ADAPTER_CONFIG
    if not isinstance(base, str) or not base:
        raise InputError(f"{where} does not say what model the adapter is for; write it there as `{BASE}`")
    if config.get("revision") not in (None, "", "main"):
        raise InputError(
            f"{where} names revision {config['revision']!r} of {base!r}, and models are read from the hub in their "
            f"current one; download that revision, and write its directory there as `{BASE}`"
        )
    if is_path(base) and not Path(base).is_dir():
        raise InputError(
            f"the adapter in {folder} is for the model {base!r}, which does not exist here; write the directory or hub "
            f"name of that model into {where} as `{BASE}`"
        )
    return base


def read_adapter_config(folder: Path) -> dict[str, object]:
    """The keys of `adapter_config.json`. Raises InputError if it cannot be read."""
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no JSON object")
    return config


def is_path(name: str) -> bool:
    """Whether the name of a model is a path that is here, or can be nothing else: on the hub there is `org/name`."""
    return Path(name).exists() or Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def tokenizer_source(name: str) -> str:
    """Where the tokenizer of the model `name` is: with the last adapter that brings one, else with the base model."""
    source = resolve_model(name)
    for folder in reversed(source.adapters):
        if (folder / TOKENIZER_CONFIG).is_file():
            return str(folder)
    return source.base


def _is_whole(folder: Path) -> bool:
    """Whether a directory holds a model of its own; some tools write the base's config beside an adapter."""
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in WEIGHTS)


def _adapter_folder(name: str) -> Path | None:
    """The directory with the adapter of that name, or None for a whole model."""
    folder = Path(name)
    if folder.is_dir():
        return folder.absolute() if (folder / ADAPTER_CONFIG).is_file() else None
    return None if is_path(name) else _hub_adapter(name)


@lru_cache(maxsize=64)
def _hub_adapter(name: str) -> Path | None:
    """The snapshot of an adapter on the hub, with all its files; None for anything else."""
    from transformers.utils.hub import cached_file

    def fetched(file: str) -> str | None:
        try:
            found = cached_file(
                name,
                file,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **hub_options(),
            )
        except (OSError, ValueError):  # no name of a model on the hub: whoever reads its config says so
            return None
        return None if found is None else str(found)

    config = fetched(ADAPTER_CONFIG)
    if config is None:
        return None
    for file in HUB_FILES[1:]:
        fetched(file)
    return Path(config).parent
