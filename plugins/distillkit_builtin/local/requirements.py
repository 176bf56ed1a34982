"""What a local model takes, for `distillkit check`: packages, memory, an architecture that can be computed."""

import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from distillkit.context import RunContext
from distillkit.roles.plugin import CheckReport
from distillkit_builtin.local.lora.starting_adapter import StartingAdapter
from distillkit_builtin.local.model_files.downloads import download_note
from distillkit_builtin.local.model_files.model_config import context_length, length_limit, read_config
from distillkit_builtin.local.model_files.stored_quantization import packed_method
from distillkit_builtin.local.option_types import DTypeName
from distillkit_builtin.model_source import resolve_model

if TYPE_CHECKING:
    from distillkit_builtin.local.model.footprint import Structure

PACKAGES = ("torch", "peft", "safetensors", "psutil")
LIBRARIES = frozenset({*PACKAGES, "transformers", "tokenizers"})
"""What numbers depend on; bitsandbytes and others that a model may need are not imported by every run."""
BESIDE = "what the LoRA is trained on, the model with the adapter merged in, is written into base/ beside adapter/"
FROZEN = "its towers for pictures and sound ({} parameters) are frozen: text never goes through them"
SERVED = "a server that samples for it must serve that merged model, not the bare one"


def quieten() -> None:
    """Take out what libraries tell their own developers, and no user of ours can change.

    bitsandbytes, which PEFT imports where it is there, warns of a kernel that only 4-bit models need; transformers of
    a name that PEFT still uses, and on any device of kernels for CUDA that are not installed (`kernel_packages`).
    """
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    logger = logging.getLogger("bitsandbytes")
    if logger.level == logging.NOTSET:  # else it was set on purpose
        logger.setLevel(logging.ERROR)
    logging.getLogger("transformers.integrations.hub_kernels").addFilter(_is_no_fallback)


def _is_no_fallback(record: logging.LogRecord) -> bool:
    return "falling back to its reference PyTorch implementation" not in record.getMessage()


def missing_extra(plugin: str, *more: str) -> str | None:
    """One line that says what to install before `plugin` can be used, or None; `more` are packages besides."""
    missing = [package for package in (*PACKAGES, *more) if find_spec(package) is None]
    if not missing:
        return None
    return f"{plugin} needs {', '.join(missing)}: pip install 'distillkit[local]'"


def local_report(
    source: str,
    plugin: str,
    device: str,
    dtype: DTypeName,
    *,
    run: RunContext,
    lora_rank: int | None = None,
    samples: bool = True,
    start: StartingAdapter | None = None,
) -> CheckReport:
    """What loading `source` takes, as far as it is known without its weights; `plugin` is how the report calls it.

    `lora_rank` is a student's: 0 trains all weights; None: the model is frozen. `samples`: the student samples itself.
    `start` is the LoRA that a student goes on training.

    Raises:
        InputError: if the local backend cannot run the model.
    """
    missing = missing_extra(plugin)
    if missing:
        return CheckReport((f"{plugin}: {source}",), missing=missing)
    quieten()
    from distillkit_builtin.local.device import device_in_check
    from distillkit_builtin.local.model.footprint import footprint
    from distillkit_builtin.local.model_files.quantization import require_trainable

    _require_loadable(run, source, whole=lora_rank == 0)
    to_download = run.share(("to download", source), lambda: download_note(run, resolve_model(source).base))
    size = footprint(source, device_in_check(run, device), dtype)
    if lora_rank == 0 and size.quantization is not None:
        require_trainable(source, size.quantization.method)
    first = f"{plugin}: {resolve_model(source).describe()}, {size.describe()}"
    frozen = _frozen_notes(size.structure) if lora_rank == 0 else ()
    rest = [*_adapter_notes(source, start, lora=bool(lora_rank), samples=samples), *frozen]
    limit = _limit(plugin, source, "serve it over HTTP" if lora_rank is None else "take another model")
    notes = (first, *(f"{plugin}: {note}" for note in rest), *([limit] if limit else []))
    if to_download is not None and run.share(("told", source), lambda: run.user) == run.user:
        notes = (*notes, to_download)
    return CheckReport(notes, length_limit=limit)


def _require_loadable(run: RunContext, source: str, *, whole: bool) -> None:
    """Raise InputError for a model that cannot be loaded here, or not be trained `whole`."""
    from distillkit_builtin.local.model.footprint import model_structure
    from distillkit_builtin.local.model.model_check import require_loadable
    from distillkit_builtin.local.model_files.quantization import require_trainable

    if whole:  # before packages are asked for that would be of no use
        require_trainable(source, packed_method(read_config(source)))
    model_structure(source)
    run.share(("loadable", source), lambda: require_loadable(source))


def _limit(plugin: str, source: str, otherwise: str) -> str:
    """Why a model is given no longer sequences, and what to do; empty where that is its own length."""
    limit = length_limit(source)
    if limit is None or context_length(source) != limit.tokens:
        return ""
    return (
        f"{plugin} reads sequences of at most {limit.tokens} tokens here: beyond, {limit.why}, so a token's logprob "
        "would depend on its batch. If rows are too long, lower sampling.max_completion_tokens, leave out the longest "
        f"by data.max_prompt_tokens, or {otherwise}"
    )


def _frozen_notes(structure: "Structure") -> Iterator[str]:
    """What stays as it is where all weights are trained."""
    from distillkit_builtin.local.model.footprint import counted

    towers = structure.parameters - structure.text_parameters
    if towers:
        yield FROZEN.format(counted(towers))


def _adapter_notes(source: str, start: StartingAdapter | None, *, lora: bool, samples: bool) -> Iterator[str]:
    """What the user should know where adapters are merged into a model, or one is trained on."""
    if start is not None and start.note is not None:
        yield start.note
    if resolve_model(source).adapters:
        if lora:
            yield BESIDE
        if not samples:
            yield SERVED
