"""The active tokens of scored completions, laid end to end, and what is estimated from them.

Of each token `advantage = teacher_logprob - sampling_logprob`, in nats. The tokens of a completion depend on
each other, and the completions of a row on its prompt: what is independent is the row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distillkit.arrays import Array, BoolArray, IntArray
from distillkit.records import Rollout, Score
from distillkit.tokenizer import has_end

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over tokens, and how far off it may be."""

    value: float
    """The mean, in nats a token."""
    standard_error: float | None
    """Of the mean, by rows; null for fewer than two rows."""

    @property
    def error(self) -> float:
        """The standard error; infinite where it is not known."""
        return math.inf if self.standard_error is None else self.standard_error


def estimate(values: Doubles, rows: IntArray) -> Estimate | None:
    """The mean of `values` [n] and its standard error, where `rows` [n] says to which row each belongs; None of none.

    With n_i values of row i that sum to s_i, C rows: m = sum_i s_i / sum_i n_i, and SE^2 =
    C / (C - 1) * sum_i (s_i - m n_i)^2 / (sum_i n_i)^2, the linearized variance of a ratio, robust to any dependence
    within a row (Cameron and Miller, A Practitioner's Guide to Cluster-Robust Inference, 2015).
    """
    if not len(values):
        return None
    mean = float(values.mean())
    _, index = np.unique(rows, return_inverse=True)
    residuals = np.bincount(index, weights=values - mean)
    count = len(residuals)
    if count < 2:
        return Estimate(mean, None)
    return Estimate(mean, math.sqrt(count / (count - 1) * float(residuals @ residuals)) / len(values))


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTokens:
    """Active tokens [n] with the logprobs of both sides, in float64."""

    ids: IntArray
    sampling: Doubles
    """Logprobs under the policy that sampled."""
    teacher: Doubles
    """Logprobs under the teacher."""
    places: Doubles
    """Where in its completion a token stands: (t + 0.5) / R, between 0 and 1."""
    rows: IntArray
    """The number of the row that it belongs to."""
    ends: BoolArray
    """Whether it is the last of a completion, and ends its turn (`has_end`)."""
    completions: int

    @property
    def advantages(self) -> Doubles:
        """`teacher_logprob - sampling_logprob` [n]."""
        return self.teacher - self.sampling

    def reverse_kl(self) -> Estimate | None:
        """The mean of `sampling_logprob - teacher_logprob`, in nats a token; None without tokens."""
        return estimate(-self.advantages, self.rows)

    def part(self, pieces: int) -> IntArray:
        """In which of so many equal pieces of its completion each token [n] stands, from 0."""
        return np.minimum((self.places * pieces).astype(np.int64), pieces - 1)


def scored_tokens(scores: Sequence[Score]) -> ScoredTokens:
    """The active tokens of completions with these scores; each score counts as a completion of its own."""
    rollouts = [score.request.rollout for score in scores]
    return ScoredTokens(
        _joined([rollout.at_active(rollout.token_ids) for rollout in rollouts], np.int64),
        _joined([rollout.at_active(rollout.logprobs) for rollout in rollouts], np.float64),
        _joined([score.request.rollout.at_active(score.logprobs) for score in scores], np.float64),
        _joined([rollout.at_active(_places(len(rollout.token_ids))) for rollout in rollouts], np.float64),
        rows_of(rollouts),
        _joined([rollout.at_active(_ends(rollout)) for rollout in rollouts], np.bool_),
        len(rollouts),
    )


def rows_of(rollouts: Sequence[Rollout]) -> IntArray:
    """The number of its row, for each active token of the completions laid end to end."""
    numbers: dict[tuple[str, int], int] = {}
    each = [numbers.setdefault((rollout.key.row_id, rollout.key.epoch), len(numbers)) for rollout in rollouts]
    return np.repeat(np.array(each, np.int64), [rollout.active_count for rollout in rollouts])


def _places(count: int) -> Doubles:
    return (np.arange(count) + 0.5) / count


def _ends(rollout: Rollout) -> BoolArray:
    ends = np.zeros(len(rollout.token_ids), np.bool_)
    ends[-1] = has_end(rollout)
    return ends


def _joined(parts: Sequence[Array], dtype: npt.DTypeLike) -> Array:
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)
