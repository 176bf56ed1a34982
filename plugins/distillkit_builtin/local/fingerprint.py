"""A short digest of a model's files: a directory may be trained on, or replaced, under the same name."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from distillkit.errors import InputError
from distillkit_builtin.hf_tokenizer import unavailable

CONFIGS = ("config.json", "generation_config.json", "adapter_config.json")
"""Architecture, what ends a completion, and the adapter that transformers loads along with a model."""
WHOLE = 64 * 2**20
"""Bytes; of a larger file a sample is read."""
BLOCKS, BLOCK = 512, 4096
"""The sample: so many blocks of so many bytes, evenly spread. Training moves nearly every weight, so it shows there."""


def model_fingerprint(source: str) -> dict[str, str]:
    """What identifies a model, by name: of a directory digests of its files, of a model on the hub its revision.

    A copy of a directory is the same model.

    Raises:
        InputError: if the files cannot be read.
    """
    folder = Path(source)
    if not folder.is_dir():
        return _revision(source)
    try:
        configs = [path for name in CONFIGS if (path := folder / name).is_file()]
        return {"model config": _digest(configs), "weights": _digest(sorted(folder.glob("*.safetensors")))}
    except OSError as error:
        raise InputError(unavailable("model", source, error)) from error


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
