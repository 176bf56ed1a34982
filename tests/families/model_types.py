"""What transformers has as language models, and which of it nothing here measures."""

import textwrap
from collections.abc import Mapping

import transformers
from transformers.models.auto import modeling_auto

from families.catalogue import FAMILIES, NO_LANGUAGE_MODEL, NOT_BUILT


def listed_types() -> set[str]:
    """The model types that transformers lists as causal language models, or as ones that read more than text."""
    return {*modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}


def untested_types() -> list[str]:
    """Those that no list of ours has: what a newer transformers brings."""
    measured = {family.model_type for family in FAMILIES.values()}
    return sorted(listed_types() - {*measured, *NO_LANGUAGE_MODEL, *NOT_BUILT})


def rest_of_page() -> str:
    """What docs/models.md says of all that is not in its table."""
    untested = ", ".join(f"`{name}`" for name in untested_types()) or "none"
    parts = [
        _wrapped(f"**Untested** (transformers {transformers.__version__}): {untested}."),
        "**Language models of which no tiny one is built**, so that nothing is known of them:",
        _by_reason(NOT_BUILT),
        "**No causal language models of text**, though transformers lists them:",
        _by_reason(NO_LANGUAGE_MODEL),
    ]
    return "\n\n".join(part for part in parts if part)


def _by_reason(reasons: Mapping[str, str]) -> str:
    names: dict[str, list[str]] = {}
    for name, why in sorted(reasons.items()):
        names.setdefault(why, []).append(f"`{name}`")
    return "\n".join(_wrapped(f"- {', '.join(each)}: {why}") for why, each in names.items())


def _wrapped(text: str) -> str:
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, 138, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
