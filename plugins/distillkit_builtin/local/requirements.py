"""What can be known of a local model before torch is imported or weights are read."""

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import StringConstraints

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.roles.plugin import CheckReport
from distillkit_builtin.hf_tokenizer import unreachable

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PACKAGES = ("torch", "peft", "safetensors")
DeviceName = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
DTypeName = Literal["auto", "bfloat16", "float16", "float32"]
ForwardName = Literal["auto", "fast", "plain"]
FORWARD = (
    "How it is computed. plain: transformers' own forward, sequences padded. fast: our own forward for sampling and "
    "scoring, and packed sequences for training, of architectures like Llama; an error where that is not found, at the "
    "start, to compute the same. auto: fast where it is, else plain."
)


def missing_extra(plugin: str) -> str | None:
    """One line that says what to install, or None."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if not missing:
        return None
    return f"{plugin} needs {', '.join(missing)}: pip install 'distillkit[local]'"


def require_config(source: str) -> None:
    """Raise InputError unless the model's `config.json` can be read."""
    read_config(source)


@lru_cache(maxsize=16)
def read_config(source: str) -> "PreTrainedConfig":
    """The model's config, which is small; no weights. Cached, because nothing in it depends on the run."""
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(unreachable("config", source, error)) from error
    return config


def context_length(source: str) -> int | None:
    """`max_position_embeddings`, where the config has it."""
    length = getattr(read_config(source).get_text_config(), "max_position_embeddings", None)
    return None if length is None else int(length)


def local_report(
    source: str,
    who: str,
    device: str,
    dtype: DTypeName,
    *,
    run: RunContext,
    lora_rank: int | None = None,
) -> CheckReport:
    """What loading `source` takes, as far as it is known without torch.

    `lora_rank` is a student's: 0 trains all weights; None: the model is frozen. In one `run`, whoever comes first
    counts a frozen model that several use, a LoRA's base among them.

    Raises:
        InputError: if the local backend cannot run the model.
    """
    missing = missing_extra(who)
    if missing:
        return CheckReport((f"{who}: {source}",), missing=missing)
    from distillkit_builtin.local.footprint import footprint, require_batchable

    require_batchable(source)
    size = footprint(source, device, dtype, run.rank)
    held = 0 if lora_rank is None else size.training_bytes(lora_rank)
    if lora_rank != 0 and _counts(run, source, size.device, str(size.dtype)):
        held += size.weight_bytes
    return CheckReport((f"{who}: {source}, {size.describe()}",), memory_bytes=held)


def _counts(run: RunContext, *frozen_model: str) -> bool:
    """Whether this user of the model is the one that reports its weights."""
    return run.share(("counts", *frozen_model), lambda: run.user) == run.user
