"""The values that travel through a step: `Row -> Prompts -> Rollout -> ScoredRollout -> Batch -> StepResult`.

Each value is frozen, holds read-only arrays, and carries its own identity, so that nothing is ever joined by position
in a list. Token ids are int64, logprobs float32 in natural log; `P` is a prompt's length in tokens, `R` a response's.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from distillkit.errors import AlignmentError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
INT64, FLOAT32, BOOL = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.bool_)
"""Compared with an array's dtype four times as fast as the classes are."""

FinishReason = Literal["stop", "length"]
"""`stop`: the model ended the completion itself, or reached a stop string; `length`: it was cut at the limit."""


def frozen_array(values: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """A read-only one-dimensional copy of `values` (or `values` itself, if it is that already)."""
    if isinstance(values, np.ndarray) and values.dtype == dtype and not values.flags.writeable:
        return values
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def all_true(count: int) -> BoolArray:
    """A read-only [count] of True: a part of an array that is kept, since every completion asks for one many times."""
    return _trues(1 << count.bit_length())[:count]


@lru_cache
def _trues(count: int) -> BoolArray:
    """Asked for powers of two alone, so there are few of them, and together they are twice the longest."""
    trues: BoolArray = frozen_array(np.ones(count), BOOL)
    return trues


def freeze(value: object, **dtypes: npt.DTypeLike) -> None:
    """Replace the named fields of a frozen value, where they are not None, by read-only arrays."""
    for name, dtype in dtypes.items():
        array = getattr(value, name)
        if array is not None:
            object.__setattr__(value, name, frozen_array(array, dtype))


def token_ids(values: npt.ArrayLike) -> IntArray:
    """Read-only int64 token ids, shape [n]."""
    return frozen_array(values, INT64)


def logprob_array(values: npt.ArrayLike) -> FloatArray:
    """Read-only float32 natural-log probabilities, shape [n]."""
    return frozen_array(values, FLOAT32)


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn. `extra` keeps whatever else the row's message held (`name`, `tool_calls`, ...)."""

    role: str
    content: str
    extra: Mapping[str, JsonValue] = field(default_factory=dict)

    def as_dict(self) -> dict[str, JsonValue]:
        """The turn as chat templates read it."""
        return {"role": self.role, "content": self.content, **self.extra}


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of a dataset, in one epoch."""

    row_id: str
    """File line and a hash of the line's content, such as `12-9f86d08188`."""
    line: int
    messages: Messages
    """What the student reads."""
    fields: Mapping[str, JsonValue]
    """The whole row as it stands in the file, unknown fields too."""
    epoch: int = 0

    @property
    def expected_answer(self) -> str | None:
        """The row's `expected_answer` as text, for evaluators; None where the row has none."""
        answer = self.fields.get("expected_answer")
        return None if answer is None else str(answer)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher as routers and prompt builders see it."""

    name: str
    """Its `route_value`, or its model where that is unset. Unique in a run."""
    model: str
    weight: float = 1.0
    messages_key: str = "teacher_messages"
    """The row field with this teacher's privileged prompt."""
    missing_messages: Literal["student", "error"] = "student"
    """What a row without that field means: scored under the student's messages, or an error."""
    tokenizer_model: str | None = None
    """Where its tokenizer is found; None: the model."""
    chat_template_kwargs: Mapping[str, JsonValue] | None = None
    """Options for its chat template; None: the student's."""

    @property
    def slug(self) -> str:
        """The name made safe for metric names, plus 10 hex digits of its SHA-256."""
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.name).strip("-")[:40]
        return f"{safe}-{hashlib.sha256(self.name.encode()).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Route:
    """Which teachers score a row. The built-in routers return exactly one (routed MOPD does not blend)."""

    weights: Mapping[str, float]
    """Teacher name to weight, in the order in which they are asked."""

    @classmethod
    def to(cls, teacher: str) -> "Route":
        """The route to one teacher."""
        return cls({teacher: 1.0})

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the teachers that score the row."""
        return tuple(self.weights)

    @property
    def label(self) -> str:
        """How metrics and tables call this route."""
        return "+".join(self.weights)


@dataclass(frozen=True, slots=True, eq=False)
class ChatPrompts:
    """What a PromptBuilder makes of a row: the messages that each side reads."""

    student: Messages
    teachers: Mapping[str, Messages]
    """Teacher name to messages, one entry for each teacher of the route."""
    fallbacks: frozenset[str] = frozenset()
    """The teachers that read the student's messages because the row has none for them; counted and reported."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """A row's prompts as token ids. The teacher's may differ from the student's in length and content."""

    row: Row
    route: Route
    student: IntArray
    """[P] what the student continues."""
    teachers: Mapping[str, IntArray]
    """Teacher name to [P'] token ids."""


@dataclass(frozen=True, slots=True, order=True)
class SampleKey:
    """The identity of one completion: the row, the epoch, and which of the row's completions."""

    row_id: str
    epoch: int
    sample: int


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How completions are drawn. Logprobs are always at temperature 1, before top-p and top-k."""

    max_tokens: int
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; the tokens that make one up are kept."""

    @property
    def is_untouched(self) -> bool:
        """Whether completions are drawn from exactly the law whose logprobs they carry."""
        return self.temperature == 1.0 and self.top_p == 1.0 and self.top_k == 0


@dataclass(frozen=True, slots=True, eq=False)
class SampleRequest:
    """One completion to draw."""

    key: SampleKey
    prompt_ids: IntArray
    seed: int
    """Derived from the run's seed and `key`, so order and concurrency do not change the data."""
    params: SamplingParams


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One completion, with the logprobs of exactly the sampled tokens under the policy that sampled them."""

    request: SampleRequest
    policy_version: int
    token_ids: IntArray
    """[R] the sampled ids; the end-of-turn token is one of them when the model ended by itself."""
    logprobs: FloatArray
    """[R] log-softmax at temperature 1, before top-p and top-k. NaN where `mask` is False."""
    finish_reason: FinishReason
    text: str
    mask: BoolArray | None = None
    """[R] False where a token was not sampled by the policy (a tool's output); None: all were."""
    rewards: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse logprobs or a mask that do not fit the tokens; hold read-only copies."""
        freeze(self, token_ids=INT64, logprobs=FLOAT32, mask=BOOL)
        count = len(self.token_ids)
        if count == 0:
            raise AlignmentError(f"{self.key}: a rollout needs at least one token; yield a Failure instead")
        require_logprobs(self, self.logprobs, count, self.active)

    def __str__(self) -> str:
        """What errors call it."""
        return f"rollout {self.key}"

    @property
    def key(self) -> SampleKey:
        """The completion's identity."""
        return self.request.key

    @property
    def active(self) -> BoolArray:
        """[R] True where the policy sampled the token, so that it counts for training and metrics."""
        return all_true(len(self.token_ids)) if self.mask is None else self.mask

    @property
    def active_count(self) -> int:
        """How many tokens are active."""
        return len(self.token_ids) if self.mask is None else int(np.count_nonzero(self.mask))

    def at_active(self, values: Array) -> Array:
        """Those of `values` [R, ...] that stand at active tokens; `values` itself where all are."""
        return values if self.mask is None else values[self.mask]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreRequest:
    """One completion to score under one teacher's prompt."""

    rollout: Rollout
    teacher: str
    prompt_ids: IntArray
    """[P'] the teacher's own prompt."""

    @property
    def key(self) -> SampleKey:
        """The completion's identity."""
        return self.rollout.key


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """A teacher's logprobs of exactly the sampled tokens."""

    request: ScoreRequest
    logprobs: FloatArray
    """[R] log-softmax at temperature 1 of each sampled id, given the teacher's prompt and the response so far."""
    echoed_ids: IntArray | None
    """[R] the ids that the backend says it scored; None if it does not say."""
    version: int = 0
    """Of the teacher: 0 for a frozen one; a self or moving-average teacher counts up at weight syncs."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """Further per-token results by capability name (`topk_ids`, ...); the first axis is R."""

    def __post_init__(self) -> None:
        """Refuse a score of other tokens than the sampled ones; hold read-only copies."""
        freeze(self, logprobs=FLOAT32, echoed_ids=INT64)
        rollout = self.request.rollout
        require_logprobs(self, self.logprobs, len(rollout.token_ids), rollout.active)
        if self.echoed_ids is not None and not np.array_equal(self.echoed_ids, rollout.token_ids):
            raise AlignmentError(f"{self}: {_first_other_id(rollout.token_ids, self.echoed_ids)}")
        for name, array in self.arrays.items():
            if len(array) != len(rollout.token_ids):
                raise AlignmentError(
                    f"{self}: array {name!r} has {len(array)} rows for {len(rollout.token_ids)} tokens"
                )

    def __str__(self) -> str:
        """What errors call it."""
        return f"score of {self.request.key} by teacher {self.request.teacher!r}"

    @property
    def ids_proved(self) -> bool:
        """Whether the backend showed that it scored these ids and no others."""
        return self.echoed_ids is not None


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRollout:
    """A rollout with one score from each teacher of its route."""

    rollout: Rollout
    prompts: Prompts
    scores: Mapping[str, Score]

    @property
    def key(self) -> SampleKey:
        """The completion's identity."""
        return self.rollout.key


@dataclass(frozen=True, slots=True, eq=False)
class Datum:
    """One completion as the student trains on it."""

    key: SampleKey
    prompt_ids: IntArray
    """[P]"""
    response_ids: IntArray
    """[R]"""
    inputs: Mapping[str, Array]
    """What the loss function reads, by name; the first axis is R. `weights` are the normalization, computed once over
    the whole optimizer step: a backend sums `weight * loss` over tokens and divides by nothing."""


TorchLoss = Callable[[Any, Mapping[str, Any], Mapping[str, float]], Any]
"""`(logprobs [N] with gradient, inputs of [N] tensors, options) -> loss a token [N]`, over all response tokens of a
micro-batch laid end to end. For research losses; a student that runs torch in this process can use it."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The data of one optimizer step."""

    loss_function: str
    options: Mapping[str, float]
    datums: tuple[Datum, ...]
    torch_loss: TorchLoss | None = None
    """The loss's own code, for students that do not know `loss_function` by name; the engine puts it here."""


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """What one optimizer step did."""

    metrics: Mapping[str, float]
    """Full names, such as `train/loss` and `train/grad_norm`."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A published policy version, and where another process finds it."""

    version: int
    format: Literal["live", "peft", "safetensors"]
    """`live`: only the student itself can sample from it."""
    path: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """What a Sampler or Scorer yields when it could not answer a request. Nothing is dropped without one."""

    request: SampleRequest | ScoreRequest
    reason: str
    retryable: bool = False
    """Whether the same request might succeed later; retries are the backend's own, this goes to the ledger."""
    retry_after: float | None = None
    """Seconds, where the backend said so."""


ROUNDING = 1e-2
"""How far above 0 the logprob of a certain token may be rounded, in bfloat16."""


def require_logprobs(what: object, logprobs: FloatArray, count: int, active: BoolArray) -> None:
    """Raise AlignmentError about `what` unless there is one finite logprob of at most 0 for each active token."""
    if len(logprobs) != count or len(active) != count:
        raise AlignmentError(f"{what}: {len(logprobs)} logprobs and a mask of {len(active)} for {count} tokens")
    wrong = active > (np.isfinite(logprobs) & (logprobs <= ROUNDING))
    if not np.count_nonzero(wrong):
        return
    bad = np.flatnonzero(active & ~np.isfinite(logprobs))
    if bad.size:
        raise AlignmentError(f"{what}: the logprob of token {bad[0]} is {logprobs[bad[0]]}, not a finite number")
    at = np.flatnonzero(wrong)[0]
    raise AlignmentError(f"{what}: the logprob of token {at} is {logprobs[at]}, a probability of more than one")


def _first_other_id(wanted: IntArray, got: IntArray) -> str:
    if len(wanted) != len(got):
        return f"{len(got)} ids came back for {len(wanted)} tokens"
    at = int(np.flatnonzero(wanted != got)[0])
    return f"token {at} is id {got[at]}, not the sampled {wanted[at]}"
