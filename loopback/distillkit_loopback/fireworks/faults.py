"""The faults of the Fireworks service; `transport.faults` has the queue, and what all can have.

`training.faults` are for whatever a request starts: a job, a deployment, a hot load, a promotion, an operation.
"""

from dataclasses import dataclass

from distillkit_loopback.training.faults import Fails, NeverDone
from distillkit_loopback.transport.faults import Delay, GenerationConfig, Hangup, Status


@dataclass(frozen=True, slots=True)
class CutStream:
    """A completion's stream ends half-way, without saying so."""


@dataclass(frozen=True, slots=True)
class NoFinishReason:
    """A completion is cut half-way, and its stream ends as a whole one does, but for the finish reason."""


@dataclass(frozen=True, slots=True)
class StreamError:
    """A stream with HTTP 200 says half-way that it failed."""

    status: int | None = None
    """The HTTP status that stands in the error; None: none does."""
    code: str | None = "engine_error"
    kind: str | None = "server_error"
    """The error's `type`."""
    message: str = "injected fault"
    as_event: bool = True
    """By an event of its own, `event: error`; else by a data frame with `error`."""


@dataclass(frozen=True, slots=True)
class OtherFinish:
    """A whole completion ends for a reason that is no success."""

    reason: str = "content_filter"


@dataclass(frozen=True, slots=True)
class BrokenStream:
    """A frame of a stream is not what it should be, and the stream ends there."""

    frame: bytes = b'data: {"choices": [{"index"\n\n'


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
class Dies:
    """On a trainer's request: the job fails, its models are lost, and its calls get 503 until a resume."""

    message: str = "the trainer died"


Fault = (
    Status
    | Delay
    | Hangup
    | CutStream
    | NoFinishReason
    | StreamError
    | OtherFinish
    | BrokenStream
    | MissingLogprobs
    | FewerLogprobs
    | NullLogprob
    | WrongIds
    | Fails
    | NeverDone
    | Dies
    | GenerationConfig
)
