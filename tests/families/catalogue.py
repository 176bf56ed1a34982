"""All families by name: the model type, with the variant where one type has several."""

from collections.abc import Mapping
from types import MappingProxyType

from families.dense import DENSE
from families.experts import EXPERTS
from families.family import Family
from families.hybrid import HYBRID
from families.left_out import NO_LANGUAGE_MODEL, NOT_BUILT
from families.wrappers import WRAPPERS

__all__ = ["FAMILIES", "NOT_BUILT", "NO_LANGUAGE_MODEL"]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in (*DENSE, *EXPERTS, *HYBRID, *WRAPPERS)}
)
