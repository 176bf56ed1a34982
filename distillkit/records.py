"""What comes of a completion on its way through a step: sampled, then scored (`training_data`: then trained).

Each value is frozen with all that it holds, checked in its constructor, and carries its own identity, so that nothing
is ever joined by position in a list. `P` is a prompt's length in tokens, `R` a response's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from distillkit.arrays import (
    BOOL,
    FLOAT32,
    INT64,
    Array,
    BoolArray,
    FloatArray,
    IntArray,
    all_true,
    freeze_arrays,
    freeze_inputs,
    logprob_array,
    require_logprobs,
    require_same_ids,
)
from distillkit.errors import AlignmentError
from distillkit.frozen import FrozenDict, Value, freeze_fields
from distillkit.token_arrays import id_table, require_arrays, require_logprob_table
from distillkit.types import Prompts, SampleKey, SampleRequest

FinishReason = Literal["stop", "length"]
"""`stop`: the model ended the completion itself, or reached a stop string; `length`: it was cut at the limit."""


@dataclass(frozen=True, slots=True, eq=False)
class Rollout(Value):
    """One completion and who sampled it. Raises AlignmentError unless each active token has a finite logprob."""

    request: SampleRequest
    policy_version: int
    """Optimizer steps in the weights that sampled it."""
    token_ids: IntArray
    """[R] the sampled ids; the end-of-turn token is one of them when the model ended by itself."""
    logprobs: FloatArray
    """[R] log-softmax at temperature 1, before top-p and top-k. NaN where `mask` is False."""
    finish_reason: FinishReason
    text: str
    """The ids decoded, without special tokens."""
    mask: BoolArray | None = None
    """[R] False where a token was not sampled by the policy (a tool's output); None: all were."""
    rewards: Mapping[str, float] = field(default_factory=FrozenDict)
    """By name; no built-in sampler gives any."""
    arrays: Mapping[str, Array] = field(default_factory=FrozenDict)
    """Further results of the policy that sampled, by name; the first axis is R. Of what the request has `wanted`:
    `topk`: `topk_ids` and `topk_logprobs` [R, K], the most probable first; `entropy`: `entropy` [R] in nats."""

    def __post_init__(self) -> None:
        """Refuse logprobs, a mask or arrays that do not fit the tokens; hold read-only copies."""
        if type(self.rewards) is not FrozenDict:
            freeze_fields(self, "rewards")
        freeze_arrays(self, token_ids=INT64, logprobs=FLOAT32, mask=BOOL)
        count = len(self.token_ids)
        if count == 0:
            raise AlignmentError(f"{self.key}: a rollout needs at least one token; yield a Failure instead")
        require_logprobs(self, self.logprobs, count, self.mask)
        if self.arrays or type(self.arrays) is not FrozenDict:
            freeze_inputs(self, "arrays", count)
        if self.request.wanted:
            require_arrays(self, self.arrays, self.active, self.request.wanted)

    def __str__(self) -> str:
        """Its name in errors, with its key."""
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
        return len(self.token_ids) if self.mask is None else int(self.mask.sum())

    def at_active(self, values: Array) -> Array:
        """Those of `values` [R, ...] that stand at active tokens; `values` itself where all are."""
        return values if self.mask is None else values[self.mask]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreRequest(Value):
    """One completion to score under one teacher's prompt."""

    rollout: Rollout
    teacher: str
    """The teacher's name."""
    prompt_ids: IntArray
    """[P'] the teacher's own prompt."""
    read_ids: IntArray | None = None
    """[R] what the teacher reads in place of the rollout's ids, under `turn_end: map`; None: the rollout's."""
    topk: int = 0
    """How many of the teacher's most probable tokens are wanted at each position besides."""
    at_ids: IntArray | None = None
    """[R, K] ids whose logprobs are wanted at each position besides; -1 is none."""

    def __post_init__(self) -> None:
        """Hold read-only copies. Raises AlignmentError for ids of another number of positions."""
        freeze_arrays(self, prompt_ids=INT64, read_ids=INT64)
        if self.at_ids is not None:
            object.__setattr__(self, "at_ids", id_table(self, self.at_ids, len(self.rollout.token_ids)))

    @property
    def token_ids(self) -> IntArray:
        """[R] the ids to be scored behind `prompt_ids`."""
        return self.rollout.token_ids if self.read_ids is None else self.read_ids

    @property
    def key(self) -> SampleKey:
        """The completion's identity."""
        return self.rollout.key


@dataclass(frozen=True, slots=True, eq=False)
class Score(Value):
    """A teacher's logprobs of exactly the sampled tokens. Raises AlignmentError for those of other tokens."""

    request: ScoreRequest
    logprobs: FloatArray
    """[R] log-softmax at temperature 1 of each of `request.token_ids`, given the teacher's prompt and those before."""
    echoed_ids: IntArray | None
    """[R] the ids that the backend says it scored; None if it does not say."""
    version: int = 0
    """Of the teacher: 0 for a frozen one; one that moves counts up at weight syncs. A window has scores of one."""
    arrays: Mapping[str, Array] = field(default_factory=FrozenDict)
    """Further per-token results by name; the first axis is R. Where the request has `topk`: `topk_ids` and
    `topk_logprobs` [R, K], the most probable first; where it has `at_ids`: `at_logprobs` [R, K], minus infinity where
    an id is none; of a capability of your own: under its name."""

    def __post_init__(self) -> None:
        """Refuse a score of other tokens than the sampled ones; hold read-only copies."""
        freeze_arrays(self, logprobs=FLOAT32, echoed_ids=INT64)
        rollout = self.request.rollout
        require_logprobs(self, self.logprobs, len(rollout.token_ids), rollout.mask)
        if self.echoed_ids is not None:
            require_same_ids(self, self.request.token_ids, self.echoed_ids)
        if self.arrays or type(self.arrays) is not FrozenDict:
            freeze_inputs(self, "arrays", len(rollout.token_ids))
        asked = self.request
        if asked.topk:
            require_arrays(self, self.arrays, rollout.active, {"topk": asked.topk})
        if asked.at_ids is not None:
            require_logprob_table(self, self.arrays, "at_logprobs", asked.at_ids.shape, rollout.active)

    def __str__(self) -> str:
        """Its name in errors, with its key."""
        return f"score of {self.request.key} by teacher {self.request.teacher!r}"

    @property
    def ids_proved(self) -> bool:
        """Whether the backend showed that it scored these ids and no others."""
        return self.echoed_ids is not None


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRollout(Value):
    """A rollout with one score from each teacher of its route. Raises AlignmentError for any other scores."""

    rollout: Rollout
    prompts: Prompts
    scores: Mapping[str, Score]
    """Teacher name to that teacher's score."""
    references: Mapping[str, Score] = field(default_factory=FrozenDict)
    """The scores of teachers outside of the route that the loss names (`Loss.references`)."""

    def __post_init__(self) -> None:
        """Refuse scores of other completions, or by other teachers than those of the route."""
        object.__setattr__(self, "scores", FrozenDict(self.scores))
        if type(self.references) is not FrozenDict:
            object.__setattr__(self, "references", FrozenDict(self.references))
        if self.scores.keys() != self.prompts.route.weights.keys():
            raise AlignmentError(f"{self.rollout}: scored by {[*self.scores]}, its route is {self.prompts.route.label}")
        for teacher, score in (*self.scores.items(), *self.references.items()):
            request, rollout = score.request, self.rollout
            if request.teacher != teacher or (request.rollout is not rollout and request.key != rollout.key):
                raise AlignmentError(f"{self.rollout}: the {score} is not one of it by teacher {teacher!r}")

    @property
    def key(self) -> SampleKey:
        """The completion's identity."""
        return self.rollout.key

    @property
    def mixture(self) -> Mapping[str, float]:
        """Teacher name to its share of the row's mixture: the route's weights, which sum to 1 here."""
        weights = self.prompts.route.weights
        total = math.fsum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    @property
    def teacher_logprobs(self) -> FloatArray:
        """[R] of the sampled tokens under the row's teacher, or the mixture of its teachers: `log sum_i w_i p_i`."""
        if len(self.scores) == 1:
            (score,) = self.scores.values()
            return score.logprobs
        parts = [np.float64(math.log(w)) + self.scores[name].logprobs for name, w in self.mixture.items() if w > 0]
        with np.errstate(invalid="ignore"):  # NaN may stand behind a mask
            return logprob_array(np.logaddexp.reduce(parts))


@dataclass(frozen=True, slots=True)
class Weights(Value):
    """A published policy version, and where another process finds it."""

    version: int
    """Optimizer steps in it; 0 is the start."""
    format: Literal["live", "peft", "safetensors"]
    """`live`: only the student itself can sample from it; `peft`: an adapter; `safetensors`: all weights."""
    path: Path | None = None
    """The directory with the files; None for `live`."""


@dataclass(frozen=True, slots=True, eq=False)
class Failure(Value):
    """What a Sampler or Scorer yields when it could not answer a request. Nothing is dropped without one."""

    request: SampleRequest | ScoreRequest
    """The one that was not answered."""
    reason: str
    """For the ledger; one line, and no secret in it."""
    retryable: bool = False
    """Whether the same request might succeed later; retries are the backend's own, this goes to the ledger."""
