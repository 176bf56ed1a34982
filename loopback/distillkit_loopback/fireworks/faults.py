"""How the service can be told to misbehave: an effect, the requests it is for, and how often."""

import re
from dataclasses import dataclass

from distillkit_loopback.transport import faults
from distillkit_loopback.transport.faults import Delay, Orders
from distillkit_loopback.transport.messages import Request


@dataclass(frozen=True, slots=True)
class Status(faults.Status):
    """Answered by an HTTP error; nothing is done."""

    message: str = "injected by the loopback service"


@dataclass(frozen=True, slots=True)
class Hangup:
    """The connection ends without an answer; with `applied`, after the work was done."""

    applied: bool = False


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

    message: str = "injected by the loopback service"


@dataclass(frozen=True, slots=True)
class NeverDone:
    """What the request starts never gets ready."""


@dataclass(frozen=True, slots=True)
class Dies:
    """On a trainer's request: the job fails, its models are lost, and its calls are answered by 503 until a resume."""

    message: str = "the trainer died"


Effect = (
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
)


@dataclass(frozen=True, slots=True)
class Fault:
    """The next `times` requests of this method whose path holds the pattern have the effect."""

    method: str
    path: str
    """A regular expression that is searched for in the path, such as `/completions$`."""
    effect: Effect
    times: int | None = 1
    """None: every one."""
    after: int = 0
    """So many are let through first."""
    model: str = ""
    """A regular expression that is searched for in the body's `model`, so that one deployment's completions can fail
    and no other's; empty: whatever the body says."""

    def __post_init__(self) -> None:
        """Raises re.error if a pattern is no regular expression."""
        re.compile(self.path)
        re.compile(self.model)

    def matches(self, request: Request) -> bool:
        """Whether such a request is one of those that are meant."""
        if request.method != self.method:
            return False
        return bool(re.search(self.path, request.path) and re.search(self.model, request.model))


class Faults(Orders[Effect]):
    """The faults that were ordered."""

    def add(self, fault: Fault) -> None:
        """Order one."""
        self.order(fault.effect, fault.matches, times=fault.times, after=fault.after)
