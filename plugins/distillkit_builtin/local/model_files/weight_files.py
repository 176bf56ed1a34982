"""The safetensors files of a model or an adapter, and what their headers say: names, shapes, formats. Needs no torch.

A header is read in microseconds, and shows most of what goes wrong on the way to a directory: a download that was cut,
a pointer of git-lfs in the place of the file, a shard that is missing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names
from distillkit_builtin.model_source import ADAPTER_WEIGHTS

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
LFS = b"version https://git-lfs"
LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
CONVERT = (
    "which is a pickle: reading one can run code, so distillkit takes safetensors alone. Where you trust it, "
    "`from_pretrained(DIR).save_pretrained(NEW)` of its class in transformers writes them"
)
AGAIN = "copy or download it again"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file, as the file's header describes it."""

    file: Path
    format: str
    """Of its numbers, in the names of safetensors: F32, BF16, F8_E4M3, I8, ..."""
    shape: tuple[int, ...]


def model_files(base: str) -> tuple[Path, ...] | None:
    """The weights' files of a whole model; None for a model on the hub that is not, or not all, in the cache yet.

    Raises:
        InputError: if a directory lacks them, or some of them, or holds two sets of them.
    """
    folder = Path(base)
    if folder.is_dir():
        return _files_in(folder)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = [try_to_load_from_cache(base, name) for name in (SINGLE, INDEX)]
    except HFValidationError:
        return None
    known = [Path(path) for path in cached if isinstance(path, str)]
    if not known or (known[0].name == INDEX and not all(path.is_file() for path in _shards(known[0]))):
        return None
    return _files_in(known[0].parent)


def adapter_file(folder: Path) -> Path:
    """The file with an adapter's weights. Raises InputError if it is not there."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        pickle = folder / "adapter_model.bin"
        why = f"but {pickle.name}, {CONVERT}" if pickle.is_file() else "and no other weights"
        raise InputError(f"the adapter in {folder} has no {path.name} {why}")
    return path


def stored_tensors(files: Iterable[Path]) -> Mapping[str, StoredTensor]:
    """Every tensor of the files by name. Raises InputError for a file that is not whole, or a name that is twice."""
    found: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in _header(file).items():
            if name in found:
                raise InputError(f"{file} and {found[name].file} both hold the tensor {name}; one of them is too many")
            found[name] = tensor
    return found


def _files_in(folder: Path) -> tuple[Path, ...]:
    single, index = folder / SINGLE, folder / INDEX
    unreadable = f"the model of {str(folder)!r} cannot be read:"
    shards = _shards(index) if index.is_file() else ()
    if single.is_file():
        if set(shards) - {single}:
            raise InputError(
                f"{unreadable} it holds {SINGLE} and an index of other files, {INDEX}; remove the one that is not meant"
            )
        return (single,)
    if not index.is_file():
        raise InputError(f"{unreadable} {_without_weights(folder)}")
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise InputError(f"{index} names files that are not there: {first_names(missing)}; {AGAIN}")
    return shards


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names. Raises InputError if it cannot be read."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not names:
            raise ValueError("it names no file")
        return tuple(index.parent / name for name in sorted(names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is no index of weights ({type(error).__name__}: {error}); {AGAIN}") from error


def _without_weights(folder: Path) -> str:
    """What a directory without weights holds in their place."""
    if (folder / SINGLE).is_symlink():
        return f"{SINGLE} is a link to {(folder / SINGLE).readlink()}, which is not there"
    for pattern in PICKLES:
        for path in sorted(folder.glob(pattern)):
            if path.name != "training_args.bin":
                return f"it has no {SINGLE}, only {path.name}, {CONVERT}"
    others = [path.name for path in folder.glob("*.safetensors")]
    if others:
        return f"it has no {SINGLE} and no {INDEX}, only {first_names(others)}, which no index names"
    gguf = sorted(path.name for path in folder.glob("*.gguf"))
    if gguf:
        return (
            f"it has no {SINGLE}, only {gguf[0]}, a quantized format for inference; take the model that it was "
            "made of, or serve it over HTTP"
        )
    return f"it holds no weights, no {SINGLE}"


def _header(file: Path) -> Mapping[str, StoredTensor]:
    """What one file holds. Raises InputError unless it is as long as its header says."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(8)
            length = int.from_bytes(start, "little")
            rest = opened.read(length if len(start) == 8 and length <= LONGEST_HEADER else len(LFS))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    if (start + rest).startswith(LFS):
        raise InputError(f"{file} is a pointer of git-lfs, not the file itself; run `git lfs pull` where it came from")
    if size < 8 + length and 0 < length <= LONGEST_HEADER:
        raise InputError(f"{file} is cut off: it has {size:,} bytes, and its header alone is to have more; {AGAIN}")
    try:
        entries = json.loads(rest)
        tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        found = {name: StoredTensor(file, str(e["dtype"]), tuple(map(int, e["shape"]))) for name, e in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{file} ({size:,} bytes) is no safetensors file; {AGAIN}") from error
    if size != end:
        what = "is cut off" if size < end else "has bytes too many"
        raise InputError(f"{file} {what}: it has {size:,} bytes, and by its header {end:,}; {AGAIN}")
    return found
