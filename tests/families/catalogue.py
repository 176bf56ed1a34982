"""All families, by model type, and those of which no tiny model is made, with why."""

from collections.abc import Mapping
from types import MappingProxyType

from families.dense import DENSE
from families.experts import EXPERTS
from families.family import Family
from families.hybrid import HYBRID
from families.wrappers import WRAPPERS

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.model_type: family for family in (*DENSE, *EXPERTS, *HYBRID, *WRAPPERS)}
)
NO_LANGUAGE_MODEL: Mapping[str, str] = MappingProxyType({})
"""Model types that transformers lists as language models, and that are none of a text, with what they are."""
NOT_BUILT: Mapping[str, str] = MappingProxyType({})
"""Language models of which no tiny one could be made, with why."""
