"""The faults of the Fireworks service; `transport.faults` has the queue, and what all can have."""

from dataclasses import dataclass

from distillkit_loopback.transport.faults import Delay, GenerationConfig, Hangup, Status


@dataclass(frozen=True, slots=True)
class CutStream:
    """A completion's stream ends half-way, without saying so."""


@dataclass(frozen=True, slots=True)
class MissingLogprobs:
    """A completion comes without logprobs."""


@dataclass(frozen=True, slots=True)
class FewerLogprobs:
    """A completion has one logprob fewer than tokens."""


@dataclass(frozen=True, slots=True)
class NullLogprob:
    """One logprob of a completion is null."""

    at: int = -1
    """The position among all rows of logprobs, those of an echoed prompt included."""


@dataclass(frozen=True, slots=True)
class WrongIds:
    """One id of the prompt that a completion echoes (or names, without an echo) is another one."""

    at: int = -1
    """The position in the prompt."""


@dataclass(frozen=True, slots=True)
class Fails:
    """What the request starts ends in failure: a job, a deployment, a hot load, a promotion, a trainer's operation."""

    message: str = "injected fault"


@dataclass(frozen=True, slots=True)
class NeverDone:
    """The job or deployment that the request starts never gets ready."""


@dataclass(frozen=True, slots=True)
class Dies:
    """On a trainer's request: the job fails, its models are lost, and its calls get 503 until a resume."""

    message: str = "the trainer died"


Fault = (
    Status
    | Delay
    | Hangup
    | CutStream
    | MissingLogprobs
    | FewerLogprobs
    | NullLogprob
    | WrongIds
    | Fails
    | NeverDone
    | Dies
    | GenerationConfig
)
