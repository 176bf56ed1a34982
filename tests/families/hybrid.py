"""Families with recurrent or convolutional layers."""

from families.family import Family

HYBRID: tuple[Family, ...] = ()
