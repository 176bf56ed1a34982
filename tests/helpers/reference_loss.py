"""The recipe's numbers in plain Python, one token at a time. What the backends compute must agree with this."""

import math
from collections.abc import Sequence


def advantages(teacher: Sequence[float], sampling: Sequence[float], mask: Sequence[bool], scale: float) -> list[float]:
    return [scale * (t - s) if keep else 0.0 for t, s, keep in zip(teacher, sampling, mask, strict=True)]


def weights(masks: Sequence[Sequence[bool]], normalization: str) -> list[list[float]]:
    total = sum(sum(mask) for mask in masks)
    sequences = sum(any(mask) for mask in masks)
    result = []
    for mask in masks:
        each = {"sum": 1.0, "token_mean": 1.0 / total, "sequence_mean": 1.0 / (sequences * max(sum(mask), 1))}
        result.append([each[normalization] if keep else 0.0 for keep in mask])
    return result


def token_loss(logprob: float, sampling: float, advantage: float, cap: float) -> float:
    return -math.exp(min(logprob - sampling, cap)) * advantage


def token_gradient(logprob: float, sampling: float, advantage: float, cap: float) -> float:
    """Of `token_loss` by `logprob`; the cap is flat."""
    return token_loss(logprob, sampling, advantage, cap) if logprob - sampling < cap else 0.0
