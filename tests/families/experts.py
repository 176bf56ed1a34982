"""Mixtures of experts."""

from families.family import Family

EXPERTS: tuple[Family, ...] = ()
