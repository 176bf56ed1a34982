"""The teachers of a run, called by names that differ."""

from collections.abc import Sequence
from dataclasses import replace

from distillkit.data.teacher_names import shown_names, slugs
from distillkit.types import Teacher


def named(teachers: Sequence[Teacher]) -> tuple[Teacher, ...]:
    """The teachers of one run, each called as no other of them is."""
    names = [teacher.name for teacher in teachers]
    shown = shown_names(names, [teacher.model for teacher in teachers])
    called = zip(teachers, shown, slugs(shown, names), strict=True)
    return tuple(replace(teacher, shown=text, slug=slug) for teacher, text, slug in called)
