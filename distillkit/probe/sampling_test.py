"""Whether tokens were sampled from the distribution that their logprobs are of, from the samples alone.

Take N samples of the next token after one prompt, each with its logprob under the untouched model (temperature 1,
before top-k, penalties and the like). Before the i-th sample the distinct tokens that came before it are known, and so
is their mass `m_i = sum of exp(logprob)`. If sampling is untouched, the i-th repeats one of them with probability m_i,
whatever came before, so `sum(repeat_i - m_i)` is a martingale of variance `sum m_i (1 - m_i)`; `z` is that sum by the
root of the variance. Greedy sampling, top-k, top-p, min-p and temperatures below 1 repeat too often, temperatures above
1 too seldom; a penalty does either. Prompts are pooled.

`z` is for reading. A normal approximation fails in its tails where few repeats are expected, so the verdict is by a
test martingale, which is exact at every number of samples: a product of ratios `q_i(outcome_i) / p_i(outcome_i)`, where
q_i is any distribution chosen before the i-th sample, is nonnegative with mean 1 if p is true, so that it ever reaches
c has a probability of at most 1/c (Ville's inequality; Shafer, Shen, Vereshchagin, Vovk 2011, "Test Martingales, Bayes
Factors and p-Values"). A mean of such products is one too. Here it is of two kinds:

- the odds of a repeat are multiplied by `e^tilt` (the alternatives "too often" and "too seldom");
- the next token is predicted by the tokens before it, `(a p(x) + count(x)) / (a + i - 1)`: Blackwell and MacQueen's urn
  (1973), so a Dirichlet process around the stated distribution. It finds single tokens that are moved, as by penalties.

What cannot be seen: a bias that is small beside the noise of so many samples, such as temperature 0.95, or top-k 50
where the 50 have nearly all of the mass; docs/serving-teachers.md has a table.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from distillkit.arrays import LOGPROB_ROUNDING
from distillkit.errors import AlignmentError

Numbers = npt.NDArray[np.float64]
TILTS = np.array([sign * size for size in (0.25, 0.5, 1.0, 2.0, 4.0) for sign in (1, -1)])
URNS = np.array([2.0, 8.0, 32.0, 128.0])
TOLERANCE = 0.03
"""Nats: a server's logprobs of one prompt's next token may be off by this much, as by the rounding of other batches."""
MOST_MASS = 1.2
"""Of distinct tokens after one prompt: 1, and what rounding to bfloat16 in other batches adds."""
LOG_MILLION = math.log(1e6)
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class SamplingTest:
    """What was measured, and the verdict."""

    samples: int
    """How many, over all groups."""
    z: float
    """Standard deviations by which samples repeat others more often (above 0) or more seldom than they would; 0 where
    no repeat was possible."""
    repeated: float
    """The fraction of the samples whose token came before in its group."""
    expected: float
    """That fraction for untouched sampling with the reported logprobs."""
    log_evidence: float
    """Natural log of the test martingale: how much more probable the samples are if something touches the sampling."""
    threshold: float
    """The log evidence that untouched sampling reaches with a probability of at most exp(-threshold)."""

    @property
    def untouched(self) -> bool:
        """Whether nothing speaks against it that chance does not explain."""
        return self.log_evidence < self.threshold

    @property
    def finding(self) -> str:
        """What was measured and what does such a thing, in one line without an end; for messages."""
        how = "more often" if self.z > 0 else "more seldom"
        what = (
            "greedy sampling, top-k, top-p, min-p or a temperature below 1" if self.z > 0 else "a temperature above 1"
        )
        return (
            f"{self.repeated:.1%} of {self.samples} samples of a next token repeat one of the same prompt, where "
            f"{self.expected:.1%} would by their own logprobs ({how}, z = {self.z:.1f}); {what} does that, or a penalty"
        )


def untouched_sampling(groups: Sequence[Sequence[tuple[int, float]]], *, tests: int = 1) -> SamplingTest:
    """Test whether each group's tokens were sampled from the distribution of their logprobs.

    Args:
        groups: each the samples of one next token, after one prompt, under one set of weights: `(token id, logprob)`,
            in the order in which they were requested, each with a seed of its own. A token's probability is the mean of
            those before.
        tests: how many such tests a run makes: untouched sampling fails any of them with a probability of at most one
            in a million.

    Raises:
        AlignmentError: for a logprob that is not finite or above 0, and for those of one prompt that are of no
            distribution, since the probabilities of distinct tokens add up to more than 1.
    """
    evidence = _Evidence()
    for group in groups:
        evidence.add(group)
    return evidence.verdict(LOG_MILLION + math.log(tests))


@dataclass(slots=True)
class _Evidence:
    repeats: list[bool] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)
    """Of the distinct tokens before each sample."""
    urns: Numbers = field(default_factory=lambda: np.zeros_like(URNS))
    """[urns] log ratios."""

    def add(self, group: Sequence[tuple[int, float]]) -> None:
        counts: dict[int, int] = {}
        sums: dict[int, float] = {}
        for before, (token, logprob) in enumerate(group):
            if not -math.inf < logprob <= LOGPROB_ROUNDING:
                raise AlignmentError(f"the logprob of a sampled token is {logprob:g}")
            mass = _mass(sums[known] / count for known, count in counts.items())
            count = counts.get(token, 0)
            self.masses.append(mass)
            self.repeats.append(count > 0)
            if count:
                self.urns += np.log((URNS + count / _upper(sums[token] / count)) / (URNS + before))
            else:
                share = max(1.0 - mass, TINY) / max(1.0 - _lower(mass), TINY)
                self.urns += np.log(URNS / (URNS + before)) + math.log(share)
            counts[token], sums[token] = count + 1, sums.get(token, 0.0) + math.exp(logprob)

    def verdict(self, threshold: float) -> SamplingTest:
        repeats, masses = np.array(self.repeats, np.float64), np.array(self.masses, np.float64)
        variance = float((masses * (1.0 - masses)).sum())
        surplus = float((repeats - masses).sum())
        return SamplingTest(
            samples=len(repeats),
            z=surplus / math.sqrt(variance) if variance else 0.0,
            repeated=float(repeats.mean()) if len(repeats) else 0.0,
            expected=float(masses.mean()) if len(masses) else 0.0,
            log_evidence=float(np.logaddexp(_log_mean(_tilted(repeats, masses)), _log_mean(self.urns)) - math.log(2.0)),
            threshold=threshold,
        )


def _tilted(repeats: Numbers, masses: Numbers) -> Numbers:
    """[tilts] log ratios; the mass is taken at the end of its tolerance that speaks less against it."""
    tilts = TILTS[:, None]
    at = np.where(tilts > 0, np.minimum(1.0, masses * math.exp(TOLERANCE)), masses * math.exp(-TOLERANCE))
    ratios: Numbers = (tilts * repeats - np.log1p(at * np.expm1(tilts))).sum(axis=1)
    return ratios


def _mass(probabilities: Iterable[float]) -> float:
    mass = math.fsum(probabilities)
    if mass > MOST_MASS:
        raise AlignmentError(f"the probabilities of distinct tokens after one prompt add up to {mass:.2f}")
    return min(1.0, mass)


def _upper(probability: float) -> float:
    return min(1.0, probability * math.exp(TOLERANCE))


def _lower(probability: float) -> float:
    return probability * math.exp(-TOLERANCE)


def _log_mean(logs: Numbers) -> float:
    return float(np.logaddexp.reduce(logs)) - math.log(len(logs))
