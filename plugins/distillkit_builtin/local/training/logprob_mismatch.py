"""How far the logprobs that the sampler reported are from those that training computes for the same tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Absolute differences in nats, over some tokens."""

    total: float = 0.0
    largest: float = 0.0
    tokens: int = 0


class MismatchMeter:
    """Sums over one share of an optimizer step, kept on the device until they are read."""

    def __init__(self) -> None:
        """An empty meter."""
        self._sums: list[Tensor] = []

    def add(self, logprobs: Tensor, sampling_logprobs: Tensor) -> None:
        """Take both sides' logprobs [n] of the positions of a micro-batch that count, before the step."""
        differences = (logprobs.detach() - sampling_logprobs).abs()
        if differences.numel():
            self._sums.append(
                torch.stack(
                    [differences.sum(), differences.max(), torch.full_like(differences[0], differences.numel())]
                )
            )

    def read(self) -> Mismatch:
        """The mismatch of every token since the last call."""
        sums, self._sums = self._sums, []
        if not sums:
            return Mismatch()
        stacked = torch.stack(sums)
        return Mismatch(float(stacked[:, 0].sum()), float(stacked[:, 1].max()), int(stacked[:, 2].sum()))


def mismatch_metrics(shares: Sequence[Mismatch]) -> dict[str, float]:
    """Mean and largest absolute difference in nats a token; nothing where no token was seen."""
    tokens = sum(share.tokens for share in shares)
    if not tokens:
        return {}
    mean = math.fsum(share.total for share in shares) / tokens
    return {
        "rollout/logprob_mismatch": mean,
        "rollout/logprob_mismatch_max": max(share.largest for share in shares),
    }
