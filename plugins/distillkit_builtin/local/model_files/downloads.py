"""What is still to be downloaded of a model on the Hugging Face hub, and whether there is room for it on the disk."""

import shutil
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit_builtin.file_errors import one_line
from distillkit_builtin.hub import hub_options, hub_problem
from distillkit_builtin.local.model_files.weight_files import CONVERT, INDEX, SINGLE, model_files

ANSWER_WITHIN = 10
"""Seconds."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a model on the hub."""

    name: str
    size: int


def download_note(run: RunContext, base: str) -> str | None:
    """How much of the model's weights a run would download, and into where; None if they are here.

    Raises:
        InputError: if they cannot be downloaded, by what the hub and the disk say; if there are none to be read here.
    """
    if model_files(base) is not None:
        return None
    from huggingface_hub import constants, is_offline_mode

    place = Path(constants.HF_HUB_CACHE)
    if is_offline_mode():
        raise InputError(
            f"the weights of {base!r} are not, or not all, in the cache ({place}; HF_HOME says where it is), and "
            "HF_HUB_OFFLINE forbids to download them; unset it, or name a local directory"
        )
    try:
        found = hub_files(base)
    except InputError as error:
        return (
            f"the weights of {base} are not on this machine yet, and the hub does not say how large they are: {error}"
        )
    missing = _not_cached(base, _weights(base, found))
    planned: MutableMapping[str, int] = run.share(("downloads",), dict)
    planned[base] = sum(file.size for file in missing)
    free = shutil.disk_usage(next(path for path in (place, *place.absolute().parents) if path.exists())).free
    total = sum(planned.values())
    room = f"into {place}, where {free / 1e9:.1f} GB are free"
    if total > free:
        more = "" if len(planned) == 1 else f", {total / 1e9:.1f} GB with the run's other models"
        raise InputError(
            f"the weights of {base!r} would be downloaded ({planned[base] / 1e9:.1f} GB{more}) {room}; make room, or "
            "set HF_HOME to a directory on a larger disk"
        )
    return f"{planned[base] / 1e9:.1f} GB of weights of {base} will be downloaded {room}"


def hub_files(base: str) -> Sequence[HubFile]:
    """The model's files with their sizes. Raises InputError if the hub does not say."""
    from huggingface_hub import HfApi

    if hub_options():
        raise InputError("it does not answer")
    try:
        info = HfApi().model_info(base, files_metadata=True, timeout=ANSWER_WITHIN)
    except Exception as error:  # whichever library the hub's own is made on raises its own
        raise InputError(f"{hub_problem(base, error) or one_line(error)}") from error
    return [HubFile(file.rfilename, file.size or 0) for file in info.siblings or ()]


def _weights(base: str, files: Sequence[HubFile]) -> list[HubFile]:
    """Those that transformers loads. Raises InputError where none of them are safetensors."""
    names = {file.name for file in files}
    if SINGLE in names:
        return [file for file in files if file.name == SINGLE]
    top = [file for file in files if "/" not in file.name]
    if INDEX in names:
        return [file for file in top if file.name == INDEX or file.name.endswith(".safetensors")]
    gguf = sorted(name for name in names if name.endswith(".gguf"))
    if gguf:
        raise InputError(
            f"{base!r} holds GGUF files ({gguf[0]}), a quantized format for inference; name the model that they were "
            "made of, or serve it over HTTP"
        )
    pickles = sorted(file.name for file in top if file.name.endswith((".bin", ".pt", ".pth")))
    why = f"only {pickles[0]}, {CONVERT}" if pickles else "and no other weights"
    raise InputError(f"{base!r} on the hub has no {SINGLE}, {why}")


def _not_cached(base: str, files: Sequence[HubFile]) -> list[HubFile]:
    from huggingface_hub import try_to_load_from_cache

    return [file for file in files if not isinstance(try_to_load_from_cache(base, file.name), str)]
