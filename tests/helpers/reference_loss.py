"""The recipe's numbers in plain Python, one token at a time. What the backends compute must agree with this."""

import math
from collections.abc import Sequence


def advantages(teacher: Sequence[float], sampling: Sequence[float], mask: Sequence[bool], scale: float) -> list[float]:
    return [scale * (t - s) if keep else 0.0 for t, s, keep in zip(teacher, sampling, mask, strict=True)]


def weights(
    masks: Sequence[Sequence[bool]], normalization: str, routes: Sequence[str] | None = None
) -> list[list[float]]:
    """Of each token; `routes` names the route of each sequence (None: all are of one)."""
    routes = ["one"] * len(masks) if routes is None else routes
    total = sum(sum(mask) for mask in masks)
    sequences = sum(any(mask) for mask in masks)
    tokens_of = {
        name: sum(sum(mask) for mask, mine in zip(masks, routes, strict=True) if mine == name) for name in routes
    }
    trained = sum(tokens > 0 for tokens in tokens_of.values())
    result = []
    for mask, route in zip(masks, routes, strict=True):
        row = []
        for keep in mask:
            if not keep:
                row.append(0.0)
            elif normalization == "sum":
                row.append(1.0)
            elif normalization == "token_mean":
                row.append(1.0 / total)
            elif normalization == "sequence_mean":
                row.append(1.0 / sequences / sum(mask))
            else:
                row.append(1.0 / trained / tokens_of[route])
        result.append(row)
    return result


def token_loss(logprob: float, sampling: float, advantage: float, cap: float) -> float:
    return -math.exp(min(logprob - sampling, cap)) * advantage


def token_gradient(logprob: float, sampling: float, advantage: float, cap: float) -> float:
    """Of `token_loss` by `logprob`; the cap is flat."""
    return token_loss(logprob, sampling, advantage, cap) if logprob - sampling < cap else 0.0
