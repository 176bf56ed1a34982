"""Policies that are tables: a next-token distribution for each prefix of a completion of two tokens.

Prefix 0 is the empty one, prefix 1 + v the token v. Records hold float32 logprobs and proofs are in float64, so the
tables are made of float32 numbers: of many that are nearly alike, those whose probabilities sum to 1 most nearly.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from distillkit.arrays import Array, frozen_array

LENGTH = 2
"""Tokens of each completion."""
SHARES = (1.5, 0.5)
"""Weights in the route of a first and a second teacher: a mixture of 3 to 1."""
SPREADS = (0.4, 3.5)
"""Standard deviations of a prefix's logits, the flattest and the sharpest: teachers are sure, and unsure."""
TRIED = 200_000
"""Numbers of which a table is chosen: for 6 tokens its probabilities sum to 1 to 1e-10."""
APART = 1e-3
"""Nats between those that are nearly alike."""


@lru_cache
def random_table(seed: int, vocabulary: int) -> Array:
    """[1 + V, V] logprobs, float64 of float32 values."""
    made, prefixes = np.random.default_rng(seed), 1 + vocabulary
    spreads = made.permutation(np.linspace(*SPREADS, prefixes))[:, None]
    tries = (max(TRIED // (prefixes * vocabulary), 1), prefixes, vocabulary)
    logits = spreads * made.standard_normal((prefixes, vocabulary)) + APART * made.standard_normal(tries)
    rounded = _log_softmax(logits).astype(np.float32).astype(np.float64)
    excess = np.abs(np.log(np.exp(rounded).sum(-1)))
    return frozen_array(rounded[excess.argmin(0), np.arange(prefixes)])


def _log_softmax(logits: Array) -> Array:
    return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


@dataclass(frozen=True, slots=True, eq=False)
class Policies:
    """A student and the teachers of a row, the mixture of which counts. Each [1 + V, V]."""

    student: Array
    """It samples, too."""
    teachers: tuple[Array, ...]

    @property
    def vocabulary(self) -> int:
        """V."""
        return int(self.student.shape[1])

    @property
    def shares(self) -> tuple[float, ...]:
        """Each teacher's weight in the route."""
        return SHARES[: len(self.teachers)]

    @property
    def reference(self) -> Array:
        """[1 + V, V] of a teacher that is asked beside the route: like no other."""
        return random_table(21, self.vocabulary)

    @property
    def mixture(self) -> Array:
        """[1 + V, V] logprobs of the teachers' mixture."""
        parts = [np.log(w / sum(self.shares)) + table for w, table in zip(self.shares, self.teachers, strict=True)]
        return np.asarray(np.logaddexp.reduce(parts))

    @property
    def sampling(self) -> Array:
        """[1 + V, V] the student's probabilities, which sum to 1 to the last digit."""
        return np.exp(_log_softmax(self.student))

    @property
    def reach(self) -> Array:
        """[1 + V] how often the student writes each prefix."""
        return np.concatenate([[1.0], self.sampling[0]])
