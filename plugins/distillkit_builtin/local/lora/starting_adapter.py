"""The adapter that a student goes on training: `student.adapter`. What its config says, read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distillkit.errors import InputError
from distillkit_builtin.local.model_files.fingerprint import model_fingerprint
from distillkit_builtin.model_source import (
    ADAPTER_CONFIG,
    ModelSource,
    adapter_base,
    read_adapter_config,
    resolve_model,
)

UNCHANGED: Mapping[str, object] = {"bias": "none", "use_dora": False, "lora_bias": False, "use_qalora": False}
"""Keys of a LoRA's config that change how it is computed, with what they are where they change nothing."""
UNSET = (
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
"""Keys that are empty where they change nothing."""


@dataclass(frozen=True, slots=True)
class StartingAdapter:
    """A LoRA on linear layers, of which training starts."""

    folder: Path
    rank: int
    """The largest of its layers'."""
    note: str | None
    """What `distillkit check` says of its base model, where it cannot be compared with `student.model`."""


def read_starting_adapter(adapter: str, model: str, chosen: Mapping[str, int]) -> StartingAdapter:
    """The adapter of a student of `model`; `chosen`: `lora_rank` and `lora_alpha`, if the user chose them.

    Raises:
        InputError: if it is no LoRA that can be trained on, is for another model, or has another rank than was chosen.
    """
    folder = Path(adapter).absolute()
    if not (folder / ADAPTER_CONFIG).is_file():
        if not folder.is_dir():
            raise InputError(f"student.adapter: {adapter}: there is no such directory")
        raise InputError(f"student.adapter: {adapter} is no directory of a PEFT adapter; it has no {ADAPTER_CONFIG}")
    config = read_adapter_config(folder)
    extra = [key for key, value in UNCHANGED.items() if config.get(key, value) != value]
    extra += [key for key in UNSET if config.get(key)]
    if config.get("peft_type") != "LORA" or extra:
        what = ", ".join(extra) or f"peft_type {config.get('peft_type')}"
        raise InputError(
            f"student.adapter: {adapter} is more than a LoRA on linear layers ({what}), and cannot be trained on; give "
            "it as student.model, which merges it, and train a new LoRA on that"
        )
    ranks = {"lora_rank": config.get("r"), "lora_alpha": config.get("lora_alpha")}
    for option, value in chosen.items():
        if value != ranks[option]:
            raise InputError(
                f"student.{option} is {value}, and that of the adapter {adapter} is {ranks[option]}; leave it out: "
                "what is trained on keeps its rank, alpha and layers"
            )
    pattern = config.get("rank_pattern")
    known = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    rank = max((rank for rank in known if isinstance(rank, int)), default=0)
    if rank < 1:
        raise InputError(f"{folder / ADAPTER_CONFIG} gives the LoRA no rank (`r`)")
    return StartingAdapter(folder, rank, _note(folder, model))


def _note(folder: Path, model: str) -> str | None:
    """Why the adapter is taken for one of `model` without proof; None where it is one. Raises InputError if not."""
    named = read_adapter_config(folder).get("base_model_name_or_path")
    try:
        theirs, ours = resolve_model(adapter_base(folder)), resolve_model(model)
    except InputError:
        if not isinstance(named, str) or not named:
            return f"the adapter {folder} does not say what model it is for; it is taken for one of {model}"
        return f"the adapter {folder} is for {named}, which is not here; {model} is taken for the same model"
    if _same_place(theirs, ours):
        return None
    if Path(theirs.base).is_dir() != Path(ours.base).is_dir():
        return f"the adapter {folder} is for {named}, and {model} is taken for the same model, which cannot be known"
    if Path(ours.base).is_dir() and model_fingerprint(str(named)) == model_fingerprint(model):
        return None
    raise InputError(
        f"student.adapter: {folder} was trained on {named}, and student.model is {model}; an adapter on another model "
        f"computes nothing of use. Set student.model to {named}; if they are the same, say so in its {ADAPTER_CONFIG} "
        "(base_model_name_or_path)"
    )


def _same_place(one: ModelSource, other: ModelSource) -> bool:
    same_base = Path(one.base).resolve() == Path(other.base).resolve() if Path(one.base).exists() else one == other
    return same_base and [p.resolve() for p in one.adapters] == [p.resolve() for p in other.adapters]
