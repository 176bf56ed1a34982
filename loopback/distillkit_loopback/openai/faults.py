"""The faults of a server that speaks as vLLM or SGLang do; `transport.faults` has the queue, and what all can have."""

from dataclasses import dataclass

from distillkit_loopback.transport.faults import Delay, GenerationConfig, Hangup, Status


@dataclass(frozen=True, slots=True)
class Hang:
    """No response until the client hangs up or the server stops."""


@dataclass(frozen=True, slots=True)
class ShortBody:
    """The connection ends within the response's body."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Status 200, and a body that is not JSON."""


@dataclass(frozen=True, slots=True)
class WrongId:
    """One id is another one, wherever the response shows it."""

    at: int = -1


@dataclass(frozen=True, slots=True)
class BadLogprob:
    """One logprob is `value`: NaN, -inf, a positive number, or None (null). NaN and -inf leave as Python's JSON."""

    value: float | None = float("nan")
    at: int = -1


@dataclass(frozen=True, slots=True)
class Shorter:
    """The last `count` logprobs are left out."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class MissingEntry:
    """One logprob in between is left out."""

    at: int = -2


@dataclass(frozen=True, slots=True)
class DuplicateEntry:
    """One logprob is there twice."""

    at: int = -1


@dataclass(frozen=True, slots=True)
class SwappedEntries:
    """The logprob at `at` and the one before it, with their ids, have changed places."""

    at: int = -1


@dataclass(frozen=True, slots=True)
class NoIds:
    """The response does not name token ids, although the request has the option."""


@dataclass(frozen=True, slots=True)
class Jitter:
    """Each logprob is off by noise, another at each request: the same request scored again gives other scores."""

    nats: float = 0.05
    """The noise's standard deviation."""


@dataclass(frozen=True, slots=True)
class Order:
    """Each logprob is off by noise that depends on the last other prompt that came before (vLLM issue #42019).

    The first prompt that a server is given is scored right.
    """

    nats: float = 0.05
    """The noise's standard deviation."""


@dataclass(frozen=True, slots=True)
class OtherWeights:
    """The server's weights are others than they should be, as on one replica of several: its logits are scaled."""

    scale: float = 1.1


@dataclass(frozen=True, slots=True)
class SeveralVersions:
    """From token `at` on a completion of the token interface is of weights with another label."""

    label: str = "other"
    at: int = 1


@dataclass(frozen=True, slots=True)
class NoVersions:
    """The token interface does not say which weights sampled a completion."""


Distortion = WrongId | BadLogprob | Shorter | MissingEntry | DuplicateEntry | SwappedEntries | NoIds
"""What is wrong with a response's logprobs: those of the prompt where they were requested, else the completion's.

`at` counts from the first token of the prompt (or completion); negative numbers from behind.
"""
Unfaithful = Jitter | Order | OtherWeights
"""What is wrong with the computation; the response is in order."""
Relabelled = SeveralVersions | NoVersions
"""What is wrong with what the token interface says of its weights."""
Fault = Status | Delay | Hangup | Hang | ShortBody | Garbage | Distortion | Unfaithful | Relabelled | GenerationConfig
