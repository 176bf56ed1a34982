"""What a student trains on: a completion's datum, the batch of an optimizer step, and what came of it.

Each value is frozen with all that it holds and carries its own identity. `P` is a prompt's length in tokens, `R` a
response's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from distillkit.arrays import INT64, Array, IntArray, freeze_arrays, freeze_inputs
from distillkit.frozen import FrozenDict, Value, freeze_fields, require_numbers
from distillkit.positions import TokenLoss
from distillkit.records import Rollout
from distillkit.types import SampleKey


@dataclass(frozen=True, slots=True, eq=False)
class TeacherPrompt(Value):
    """What a teacher reads before a completion, for a student that asks it again on its own device."""

    prompt_ids: IntArray
    """[P'] the teacher's own prompt."""
    weight: float
    """Its share of the row's mixture; those of a row sum to 1."""

    def __post_init__(self) -> None:
        """Hold a read-only copy."""
        freeze_arrays(self, prompt_ids=INT64)


@dataclass(frozen=True, slots=True, eq=False)
class Datum(Value):
    """One completion as the student trains on it. Raises AlignmentError for inputs of another length than R."""

    key: SampleKey
    prompt_ids: IntArray
    """[P] what the student read."""
    response_ids: IntArray
    """[R] what it sampled."""
    inputs: Mapping[str, Array]
    """What the loss function reads, by name; the first axis is R. The engine adds `sampling_logprobs` and `weights`,
    which are computed once over the whole optimizer step: a student sums `weight * loss` over tokens and divides by
    nothing."""
    teachers: Mapping[str, TeacherPrompt] = field(default_factory=FrozenDict)
    """Teacher name to what it reads, where the loss needs `full`; the engine puts it here."""

    def __post_init__(self) -> None:
        """Refuse inputs of another length than the response; hold read-only copies."""
        freeze_arrays(self, prompt_ids=INT64, response_ids=INT64)
        freeze_inputs(self, "inputs", len(self.response_ids))
        if type(self.teachers) is not FrozenDict:
            object.__setattr__(self, "teachers", FrozenDict(self.teachers))

    def __str__(self) -> str:
        """Its name in errors, with its key."""
        return f"datum of {self.key}"

    @classmethod
    def of(cls, rollout: Rollout, inputs: Mapping[str, Array]) -> "Datum":
        """The completion with these inputs."""
        return cls(rollout.key, rollout.request.prompt_ids, rollout.token_ids, inputs)


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Value):
    """The data of one optimizer step."""

    loss_function: str
    """The name under which a student looks up the loss function."""
    options: Mapping[str, JsonValue]
    """The loss function's options by name."""
    datums: tuple[Datum, ...]
    """One for each completion, in data order."""
    token_loss: TokenLoss | None = None
    """The loss of a position, for students that run a loss's own code; the engine puts it here."""
    reads: frozenset[str] = frozenset({"logprobs"})
    """What `token_loss` reads of the student (`Loss.reads`), and `full` where it needs the teachers' distributions;
    the engine puts it here."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "options")
        object.__setattr__(self, "datums", tuple(self.datums))


@dataclass(frozen=True, slots=True, eq=False)
class StepResult(Value):
    """The result of one optimizer step."""

    metrics: Mapping[str, float]
    """Full names, such as `train/loss` and `train/grad_norm`."""

    def __post_init__(self) -> None:
        """Hold a read-only copy of `metrics`. Raises TypeError for one that is no number."""
        require_numbers(self.metrics)
        freeze_fields(self, "metrics")
