"""Fakes that give less than the kit's: the sampled tokens alone, or a top-K up to a limit. A script for `-p`."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from distillkit import Scorer, Student, hookimpl
from distillkit.testing import FakeScorer, FakeStudent


class QuietStudent(FakeStudent):
    """Gives nothing beside what it sampled."""

    name: ClassVar[str] = "quiet"

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        return {}


class QuietScorer(FakeScorer):
    """Gives nothing beside the sampled tokens' logprobs."""

    name: ClassVar[str] = "quiet"

    def capabilities(self) -> Mapping[str, int | None]:
        return {"sampled": None}


class LimitedScorer(FakeScorer):
    """Gives a top-K, up to `most`."""

    name: ClassVar[str] = "limited"

    most: int = Field(8, description="The largest K.")

    def capabilities(self) -> Mapping[str, int | None]:
        return {"sampled": None, "topk": self.most}


@hookimpl
def distillkit_students() -> Sequence[type[Student]]:
    return [QuietStudent, FakeStudent]


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    return [QuietScorer, LimitedScorer, FakeScorer]
