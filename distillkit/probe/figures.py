"""What a probe measured, as numbers; `verdicts` says what they mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import FloatArray
from distillkit.frozen import FrozenDict, Value, freeze_fields
from distillkit.metrics import finite
from distillkit.probe.sampling_test import SamplingTest

AGAIN, REVERSED, ALONE, REPLICA = "again", "reversed", "alone", "replica"
"""How a teacher is asked once more: one completion after another in the same order again, and backwards; one by one
where all were scored at once; all at once by another replica, whose name stands behind a space."""


@dataclass(frozen=True, slots=True)
class Gap(Value):
    """`teacher_logprob - sampling_logprob` over some tokens, in nats a token."""

    tokens: int
    mean: float
    """NaN without tokens, as the next."""
    mean_abs: float

    @classmethod
    def of(cls, gaps: FloatArray) -> "Gap":
        """The gap of tokens with these differences [n]."""
        values = gaps.astype(np.float64)
        if not len(values):
            return cls(0, np.nan, np.nan)
        return cls(len(values), float(values.mean()), float(np.abs(values).mean()))


@dataclass(frozen=True, slots=True)
class Disagreement(Value):
    """How far two logprobs of the same tokens are apart: a teacher's asked again, say. In nats a token."""

    tokens: int
    mean: float
    """Of the absolute differences; 0 without tokens, as the next."""
    largest: float

    @classmethod
    def of(cls, differences: FloatArray) -> "Disagreement":
        """The disagreement of tokens whose scores differ so [n]."""
        values = np.abs(differences.astype(np.float64))
        return cls(len(values), float(values.mean()), float(values.max())) if len(values) else cls(0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class TeacherFigures(Value):
    """One teacher, on the completions of the rows that it scores."""

    teacher: str
    """Its name."""
    completions: int
    """That it scored."""
    failed: int
    """That it was asked to score, and did not."""
    failure: str | None
    """Why the first of those failed."""
    ended: int
    """Completions that ended by themselves, of those that it scored."""
    gap: Gap
    """Over all tokens."""
    first: Gap
    """Over the first four tokens of each completion, but for its end."""
    end: Gap
    """Over the last tokens of completions that ended by themselves."""
    between: Gap
    """Over all others."""
    end_tokens: tuple[str, ...]
    """What those last tokens are, the most frequent first; three at most."""
    ends_as_teacher: bool = False
    """Whether each of those is, as the teacher reads it, what its own turns end with (`turn_end: map` counted in)."""
    prompts_end_alike: bool = True
    """Whether its prompts end with the same tokens as the student's: with `<|im_start|>assistant`, say."""
    asked_again: Mapping[str, Disagreement] = field(default_factory=FrozenDict)
    """How it was asked once more (`again`, `reversed`, `alone`, `replica URL`) to how far its scores were apart."""
    compared_with: str = ""
    """The replica that each `replica URL` is compared with: the one nearest to all; empty where there are not several.
    """

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "asked_again")


@dataclass(frozen=True, slots=True)
class ProbeFigures(Value):
    """All that a probe measured, and what it did for that."""

    rows: int
    completions: int
    """Sampled whole, as the run samples them."""
    sampled_tokens: int
    """Those of the sampling test counted in."""
    scored_tokens: int
    """Prompts counted in, as often as they were scored."""
    failed: int
    """Completions that could not be sampled."""
    failure: str | None
    """Why the first of those failed."""
    ended: int
    """Completions that ended by themselves, of all."""
    max_completion_tokens: int
    """Where the run cuts a completion."""
    teachers: tuple[TeacherFigures, ...]
    """Those that scored something, in the config's order."""
    not_asked: tuple[str, ...]
    """Teachers that have rows, and none among those of the probe."""
    sampling: SamplingTest | str
    """Of next tokens sampled at temperature 1 from the whole distribution; text: why their logprobs are of none."""
    run_samples_otherwise: bool
    """Whether the run samples at another temperature, or not from the whole distribution."""
    weights: Disagreement | str | None = None
    """How far the sampler's logprobs are from the student's own; text: why that is not known; None: it is its own."""
    warn_logprob_mismatch: float = 0.1
    """The run's option of that name, in nats a token."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        object.__setattr__(self, "teachers", tuple(self.teachers))


def as_json(value: object) -> JsonValue:
    """Figures as `probe.json` holds them; what is not finite is null."""
    if is_dataclass(value):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, float):
        return finite(round(value, 6))
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} is no figure")
