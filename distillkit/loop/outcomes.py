"""What became of a window's completions, and what was asked for in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from distillkit.records import Rollout, ScoredRollout
from distillkit.types import Prompts, SampleKey, SampleRequest

RowKey = tuple[str, int]
"""A row in an epoch: `(row_id, epoch)`."""


@dataclass(frozen=True, slots=True)
class LostCompletion:
    """A completion that cannot be trained, and why."""

    key: SampleKey
    stage: Literal["sample", "score", "train"]
    reason: str
    retryable: bool
    teacher: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What became of a window's completions; each is in exactly one of the two."""

    scored: tuple[ScoredRollout, ...]
    """In data order."""
    lost: tuple[LostCompletion, ...]
    rollouts: tuple[Rollout, ...]
    """All that were sampled, those that could not be scored too, in data order."""
    sample_seconds: float
    score_seconds: float
    """From the first request to the last score; overlaps sampling where scoring starts early."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowRequests:
    """The completions of some rows: what to draw, and what their teachers read."""

    prompts: Mapping[RowKey, Prompts]
    requests: tuple[SampleRequest, ...]
    """In data order."""
    policy_version: int | None = None
    """The version that must have sampled them; None takes any."""
