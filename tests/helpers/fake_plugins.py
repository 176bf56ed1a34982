"""The fakes as a script for `-p`."""

from collections.abc import Sequence

from distillkit import Scorer, Student, hookimpl
from distillkit.testing import FakeScorer, FakeStudent


@hookimpl
def distillkit_students() -> Sequence[type[Student]]:
    return [FakeStudent]


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    return [FakeScorer]
