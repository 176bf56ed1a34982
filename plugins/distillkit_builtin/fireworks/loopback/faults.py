"""How the service can be told to misbehave: an effect, the requests it is for, and how often."""

import re
import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """Answered by an HTTP error; nothing is done."""

    status: int
    retry_after: float | None = None
    """Seconds, as a Retry-After header; None: none."""
    message: str = "injected by the loopback service"


@dataclass(frozen=True, slots=True)
class Delay:
    """Answered correctly, but so late that a client may have given up."""

    seconds: float


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

    def matches(self, method: str, path: str, model: str) -> bool:
        """Whether such a request is one of those that are meant."""
        return method == self.method and bool(re.search(self.path, path) and re.search(self.model, model))


@dataclass(slots=True)
class _Pending:
    fault: Fault
    seen: int = 0

    def takes(self, method: str, path: str, model: str) -> bool:
        """Whether this request has the effect; counts it."""
        fault = self.fault
        if not fault.matches(method, path, model):
            return False
        self.seen += 1
        return self.seen > fault.after and (fault.times is None or self.seen <= fault.after + fault.times)


class Faults:
    """The faults that were ordered; each request has at most one, of the one ordered first."""

    def __init__(self) -> None:
        """None yet."""
        self._lock = threading.Lock()
        self._pending: list[_Pending] = []

    def add(self, fault: Fault) -> None:
        """Order one."""
        with self._lock:
            self._pending.append(_Pending(fault))

    def clear(self) -> None:
        """Behave from now on."""
        with self._lock:
            self._pending.clear()

    def take(self, method: str, path: str, model: str = "") -> Effect | None:
        """The effect on this request."""
        with self._lock:
            return next((each.fault.effect for each in self._pending if each.takes(method, path, model)), None)
