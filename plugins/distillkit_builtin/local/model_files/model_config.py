"""What a model's `config.json` says, which is read without torch and without weights."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from distillkit.errors import InputError
from distillkit_builtin.file_errors import unavailable
from distillkit_builtin.hub import hub_options, no_model_on_hub
from distillkit_builtin.local.model_files.stored_quantization import stays_packed
from distillkit_builtin.model_source import is_path, resolve_model
from distillkit_builtin.no_model_here import no_model_here

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

UNKNOWN_KIND = re.compile(r"has model type `([^`]*)`")
"""What transformers says of a `model_type` that it does not know."""
KINDS_OF_CACHE = ("layer_types", "sliding_window", "attention_chunk_size")
"""What transformers reads of any config to choose how much of a sequence a layer's cache keeps."""
SPARSE = {
    "index_topk": "chooses among the tokens of a batch",
    "keep_window_size": "reads what stands behind a token",
    "index_block_size": "counts its blocks from the padding",
}
"""Up to how many tokens attention that leaves some out is the same as whole attention, and what it does beyond."""


def read_config(source: str) -> "PreTrainedConfig":
    """The config of the model `source`, or of what its adapters are merged into. Read once, until its file changes.

    Raises:
        InputError: if it cannot be read.
    """
    resolved = resolve_model(source)
    try:
        return _read(resolved.base, config_state(resolved.base))
    except InputError as error:
        if not resolved.adapters:
            raise
        raise InputError(f"{error}; {resolved.adapters[0]} says that this is its base model") from error


def config_state(base: str) -> tuple[int, int] | None:
    """What changes when the config of a model in a directory does; None for a model on the hub."""
    try:
        found = (Path(base) / "config.json").stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)
def _read(base: str, state: tuple[int, int] | None) -> "PreTrainedConfig":
    from transformers import AutoConfig

    folder = Path(base)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"the config of {base!r} cannot be read: {no_model_here(folder)}")
    if is_path(base) and not folder.is_dir():  # a file would be taken for the config itself, and what is not there
        raise InputError(unavailable("config", base, ValueError()))  # would be looked for on the hub
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(base, trust_remote_code=False, **hub_options())
    except Exception as error:  # a config class computes with what the file says, and raises whatever comes of it
        raise InputError(_unknown_kind(base, error) or unavailable("config", base, error)) from error
    return config


def require_mergeable(source: str) -> None:
    """Raise InputError where a LoRA cannot be merged into the model `source`: its weights are in few bits."""
    if stays_packed(read_config(source)):
        raise InputError(
            f"a LoRA cannot be merged into {resolve_model(source).base!r}, whose weights are quantized: rounding the "
            "sum to few bits would lose what was trained. Serve the adapter beside it, or merge into the model that it "
            "was made of: student.model=org/that-model"
        )


def _unknown_kind(base: str, error: Exception) -> str | None:
    """What is wrong with a config that does not say, or says wrongly, what kind of model it is of; else None."""
    if "Should have a `model_type` key" in str(error):
        if config_state(base) is None and not _is_cached(base):
            return f"the config of {base!r} cannot be read: {no_model_on_hub(base)}"
        return f"the config.json of {base!r} has no model_type, so nothing says what kind of model it is of"
    named = UNKNOWN_KIND.search(str(error))
    if named is None:
        return None
    from transformers import PreTrainedConfig, __version__

    said, _ = PreTrainedConfig.get_config_dict(base, **hub_options())
    own_code = "auto_map" in said
    close = [] if own_code else get_close_matches(named[1], _kinds_of_language_models(), n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    code = "; code that comes with a model (its auto_map) is never run here, and no option turns that on"
    return (
        f"the config.json of {base!r} says model_type {named[1]!r}{meant}, which transformers {__version__} does not "
        f"know{code if own_code else ''}; a newer one may (pip install --upgrade transformers), or serve the model "
        "over HTTP"
    )


def _kinds_of_language_models() -> set[str]:
    """Every `model_type` whose model computes next tokens."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )

    return {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}


def _is_cached(base: str) -> bool:
    """Whether the hub had a config under that name: transformers goes on with an empty one where it had none."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(base, "config.json"), str)


def declared_text_config(config: "PreTrainedConfig") -> "PreTrainedConfig":
    """The part of a config that its language model reads: without values in the file that its class does not have.

    A Llama's config.json may say `sliding_window`, left over from another architecture. Its layers ignore that, and
    transformers' caches do not: they would forget what stands before the window.
    """
    declared = copy.copy(config.get_text_config(decoder=True))
    known = {field.name for field in fields(type(declared))}
    unknown = [name for name in KINDS_OF_CACHE if name not in known and name in vars(declared)]
    computed = _computed_values(type(declared)) if unknown else set()
    for name in unknown:
        if name not in computed:
            delattr(declared, name)
    return declared


def _computed_values(kind: "type[PreTrainedConfig]") -> set[str]:
    """What a config's class computes from its fields, besides them (ModernBERT's `sliding_window`)."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return set(vars(kind()))
    except (ValueError, TypeError, StrictDataclassError):  # two of them have no defaults
        return set()


def context_length(source: str) -> int | None:
    """Tokens that the local backend reads, or None where the config does not say. Raises InputError as `read_config`.

    `max_position_embeddings`, or less where a longer sequence would be computed in another way: see `length_limit`.
    """
    length, limit = _number(source, "max_position_embeddings"), length_limit(source)
    lengths = [length, None if limit is None else limit.tokens]
    return min((each for each in lengths if each is not None), default=None)


def embedding_rows(source: str) -> int | None:
    """How many token ids the model knows, or None where its config does not say. Raises InputError as `read_config`."""
    return _number(source, "vocab_size")


def _number(source: str, name: str) -> int | None:
    value = getattr(read_config(source).get_text_config(decoder=True), name, None)
    return None if value is None else int(value)


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """Up to which length a token's logprob depends on nothing but the tokens before it."""

    tokens: int
    why: str


def length_limit(source: str) -> LengthLimit | None:
    """Of the model `source`; None for most. Raises InputError as `read_config`.

    transformers chooses the factors of a longrope by the longest sequence of a batch, and sparse attention chooses
    among all tokens of it. So what crosses the border would have logprobs that depend on its batch, and on what it is
    still to become.
    """
    found = [
        limit for each in layer_configs(read_config(source).get_text_config(decoder=True)) for limit in _limits(each)
    ]
    return min(found, key=lambda limit: limit.tokens, default=None)


def layer_configs(config: "PreTrainedConfig") -> "Sequence[PreTrainedConfig]":
    """One a layer where they are not alike (Gemma 4), which answer for no layer in particular; else the config."""
    return list(config.per_layer_config) if config.is_heterogeneous else [config]


def _limits(config: "PreTrainedConfig") -> list[LengthLimit]:
    rope = getattr(config, "rope_parameters", None) or {}
    limits: list[LengthLimit] = []
    for each in (part for part in (rope, *rope.values()) if isinstance(part, dict)):  # some have one a kind of layer
        if each.get("rope_type") == "longrope":
            border = int(each["original_max_position_embeddings"])
            limits.append(LengthLimit(border, "its rotary embedding (longrope) is another one"))
        elif each.get("rope_type") == "dynamic" and getattr(config, "max_position_embeddings", None):
            border = int(config.max_position_embeddings)
            limits.append(LengthLimit(border, "its rotary embedding (dynamic) is another one at each length"))
    sparse = {name: getattr(config, name, None) for name in SPARSE}
    if "minimax_m3_sparse" not in (getattr(config, "layer_types", None) or ()):
        sparse.pop("index_block_size")
    return limits + [
        LengthLimit(tokens, f"its sparse attention ({name}) {SPARSE[name]}")
        for name, tokens in sparse.items()
        if isinstance(tokens, int)
    ]
