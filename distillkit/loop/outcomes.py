"""What is requested in a window, and what became of each completion."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from distillkit.loop.wanted import Wanted
from distillkit.records import Rollout, ScoredRollout
from distillkit.types import Prompts, SampleKey, SampleRequest

RowKey = tuple[str, int]
"""A row in an epoch: `(row_id, epoch)`."""
Stage = Literal["sample", "score", "train"]
"""How far a completion came: it was not sampled, not scored by all its teachers, or not trained."""


@dataclass(frozen=True, slots=True)
class LostCompletion:
    """A completion that cannot be trained, and why."""

    key: SampleKey
    stage: Stage
    reason: str
    retryable: bool
    teacher: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What became of a window's completions; each is in exactly one of `scored` and `lost`."""

    scored: tuple[ScoredRollout, ...]
    """In data order."""
    lost: tuple[LostCompletion, ...]
    rollouts: tuple[Rollout, ...]
    """All that were sampled, those that could not be scored too, in data order."""
    sample_seconds: float
    score_seconds: float
    """From the first request to the last score; overlaps sampling where scoring starts early."""

    def unscored(self) -> "Outcomes":
        """What was sampled, as if no score had come yet: of nothing else lost than what could not be sampled."""
        return replace(self, scored=(), lost=tuple(lost for lost in self.lost if lost.stage == "sample"))

    def without(self, refused: Iterable[LostCompletion]) -> "Outcomes":
        """The same, with some of the scored completions lost after all."""
        more = tuple(refused)
        gone = {completion.key for completion in more}
        scored = tuple(scored for scored in self.scored if scored.key not in gone)
        return replace(self, scored=scored, lost=(*self.lost, *more))


@dataclass(frozen=True, slots=True, eq=False)
class WindowRequests:
    """The completions of some rows: what is sampled, and what their teachers read."""

    prompts: Mapping[RowKey, Prompts]
    samples: tuple[SampleRequest, ...]
    """In data order."""
    policy_version: int | None = None
    """The version that must have sampled them; None takes any."""
    wanted: Wanted = field(default_factory=Wanted)
    """What loss and weightings need, or a diagnosis; evaluators and probes want the sampled tokens alone."""

    def prompts_of(self, key: SampleKey) -> Prompts:
        """The prompts of a completion's row."""
        return self.prompts[key.row_id, key.epoch]
