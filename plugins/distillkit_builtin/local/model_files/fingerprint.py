"""A short digest of a model's files: a directory may be trained on, or replaced, under the same name."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from distillkit.errors import InputError
from distillkit.ranks import ONLY
from distillkit_builtin.file_errors import unavailable
from distillkit_builtin.local.option_types import DTypeName
from distillkit_builtin.model_source import ADAPTER_WEIGHTS, BASE, read_adapter_config, resolve_model

CONFIGS = ("config.json", "generation_config.json")
"""Architecture, and what ends a completion."""
WHOLE = 64 * 2**20
"""Bytes; of a larger file a sample is read."""
BLOCKS, BLOCK = 512, 4096
"""The sample: so many blocks of so many bytes, evenly spread. Training moves nearly every weight, so it shows there."""


def model_fingerprint(source: str) -> dict[str, str]:
    """What identifies a model, by name: of a directory digests of its files, of a model on the hub its revision.

    So it is of the base model where adapters are merged, with a digest of each adapter. A copy of a directory is the
    same model.

    Raises:
        InputError: if the files cannot be read.
    """
    resolved = resolve_model(source)
    merged = {f"merged adapter {i}": adapter_digest(folder) for i, folder in enumerate(resolved.adapters, 1)}
    folder = Path(resolved.base)
    if not folder.is_dir():
        return {**_revision(resolved.base), **merged}
    try:
        configs = [path for name in CONFIGS if (path := folder / name).is_file()]
        weights = sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)
        return {"model config": _digest(configs), "weights": _digest(weights), **merged}
    except OSError as error:
        raise InputError(unavailable("model", source, error)) from error


def number_format(dtype: DTypeName, device: str) -> dict[str, str]:
    """What `dtype: auto` comes to on this machine's device: on another it may be another, and so may every number."""
    if find_spec("torch") is None:
        return {}
    from distillkit_builtin.local.device import resolve_device, resolve_dtype

    return {"number format": str(resolve_dtype(dtype, resolve_device(device, ONLY))).removeprefix("torch.")}


def adapter_digest(folder: Path) -> str:
    """A digest of an adapter: of its weights, and of its config but for where the base model is, which is no content.

    Raises:
        InputError: if it cannot be read.
    """
    config = {name: value for name, value in read_adapter_config(folder).items() if name != BASE}
    try:
        weights = _digest([folder / ADAPTER_WEIGHTS])
    except OSError as error:
        raise InputError(unavailable("adapter", str(folder), error)) from error
    content = json.dumps([_in_order(config), weights], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _in_order(config: Mapping[str, object]) -> dict[str, object]:
    """The config with its lists sorted: PEFT writes the set of target modules in the order of the day."""
    return {name: sorted(map(str, value)) if isinstance(value, list) else value for name, value in config.items()}


def _revision(source: str) -> dict[str, str]:
    """The commit of the snapshot that is used: its weights may not have been fetched yet, its config was by `check`."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, CONFIGS[0])
    return {"revision on the hub": Path(config).parent.name} if isinstance(config, str) else {}


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= WHOLE:
                digest.update(file.read())
                continue
            for block in range(BLOCKS):
                file.seek(block * (size - BLOCK) // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
