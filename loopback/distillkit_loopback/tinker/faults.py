"""The faults of the Tinker service; `transport.faults` has the queue, `training.faults` those of any operation."""

from dataclasses import dataclass
from typing import Literal

from distillkit_loopback.training.faults import Fails, NeverDone
from distillkit_loopback.transport.faults import Delay, Hangup, Status


@dataclass(frozen=True, slots=True)
class Dies:
    """The server dies at the request, as `TinkerService.stop` has it: nothing listens there any more."""


@dataclass(frozen=True, slots=True)
class Vanishes:
    """A save is reported as done, and the checkpoint is gone."""


@dataclass(frozen=True, slots=True)
class MissingLogprobs:
    """A completion or a score comes without logprobs."""


@dataclass(frozen=True, slots=True)
class FewerLogprobs:
    """The logprobs of a completion or a score, or of a trained sequence, lack the last one."""


@dataclass(frozen=True, slots=True)
class NaNLogprob:
    """One logprob of a completion or a score is NaN; of trained sequences all are, and so is the loss."""

    at: int = -1
    """The position among the logprobs."""


@dataclass(frozen=True, slots=True)
class WrongIds:
    """One id is taken for its neighbour: of the prompt that is scored, or of the completion that is answered."""

    at: int = -1
    """The position in the prompt or the completion."""
    of: Literal["prompt", "completion"] = "prompt"


@dataclass(frozen=True, slots=True)
class NoSequenceIds:
    """The promise of a sample has no `sample_sequence_ids`, as SkyRL's has none."""


Fault = (
    Status
    | Delay
    | Hangup
    | Fails
    | NeverDone
    | Dies
    | Vanishes
    | MissingLogprobs
    | FewerLogprobs
    | NaNLogprob
    | WrongIds
    | NoSequenceIds
)
