"""Divergences of two distributions and their gradients by the student's logits, written down once more in numpy.

Float64, from logits [V], by the closed form of each derivative; nothing here is shared with the plugins.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max())
    return np.asarray(e / e.sum())


def term(direction: str, beta: float, s: Floats, t: Floats) -> tuple[float, Floats]:
    """The sum over outcomes of probability `s` and `t`, and its derivative by each `s`."""
    if direction == "jsd" and 0 < beta < 1:
        m = beta * t + (1 - beta) * s
        value = beta * t * np.log(t / m) + (1 - beta) * s * np.log(s / m)
        return value.sum(), (1 - beta) * np.log(s / m)
    if direction == "skew" and beta > 0:
        m = beta * s + (1 - beta) * t
        return (s * np.log(s / m)).sum(), np.log(s / m) + 1 - beta * s / m
    if direction == "forward" or (direction == "jsd" and beta == 0):
        return (t * np.log(t / s)).sum(), -t / s
    return (s * np.log(s / t)).sum(), np.log(s / t) + 1


def divergence(
    direction: str,
    beta: float,
    student: Floats,
    teacher: Floats,
    ids: Sequence[int] | None = None,
    *,
    tail: bool = True,
) -> tuple[float, Floats]:
    """Value and gradient [V] by the student's logits; `ids` are a support, and all others the tail."""
    s, t = softmax(student), softmax(teacher)
    slopes = np.zeros(len(s))
    if ids is None:
        value, slopes[:] = term(direction, beta, s, t)
    else:
        inside = np.isin(np.arange(len(s)), ids)
        groups = [np.flatnonzero(inside)[:, None], *([np.flatnonzero(~inside)[None]] if tail else [])]
        outcomes = [each for group in groups for each in group if each.size]
        sums = (np.array([p[each].sum() for each in outcomes]) for p in (s, t))
        value, slope = term(direction, beta, *sums)
        for each, d in zip(outcomes, slope, strict=True):
            slopes[each] = d
    return float(value), s * (slopes - (s * slopes).sum())
