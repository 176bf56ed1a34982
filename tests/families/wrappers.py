"""Language models within models that also read images or sound."""

from families.family import Family

WRAPPERS: tuple[Family, ...] = ()
