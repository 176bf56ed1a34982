"""`Positions` of a student that is a table: next-token logits [n, V], each position's its own.

The one part of the engine that needs torch: imported when used, by those who test a loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from distillkit.positions import unsaid


@dataclass(frozen=True, eq=False)
class TablePositions:
    """Positions whose every number follows from tables; what a loss does not say that it reads is not there."""

    logits: Tensor
    """[n, V] of the student, with gradient."""
    ids: Tensor
    """[n] the sampled ones."""
    sampling_logprobs: Tensor
    """[n]."""
    inputs: Mapping[str, Tensor]
    teacher_logprobs: Tensor | None
    """[n, V] of the row's mixture of teachers; None: not needed."""
    reads: frozenset[str]
    """As `Loss.reads` says."""

    @cached_property
    def _log_softmax(self) -> Tensor:
        return torch.log_softmax(self.logits, dim=-1)

    @property
    def logprobs(self) -> Tensor:
        """[n] of the sampled ids, with gradient."""
        self._require("logprobs", "logprobs")
        return self._log_softmax.gather(1, self.ids[:, None])[:, 0]

    @property
    def student(self) -> Tensor:
        """[n, V], with gradient."""
        self._require("distribution", "student")
        return self._log_softmax

    @property
    def teacher(self) -> Tensor:
        """[n, V]."""
        if self.teacher_logprobs is None:
            raise unsaid("teacher")
        return self.teacher_logprobs

    @property
    def entropy(self) -> Tensor:
        """[n] in nats, with gradient."""
        self._require("entropy", "entropy")
        return -(self._log_softmax.exp() * self._log_softmax).sum(-1)

    def at(self, ids: Tensor) -> Tensor:
        """[n, K] with gradient; minus infinity where an id is -1."""
        self._require("at_ids", "at()")
        return self._log_softmax.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, -torch.inf)

    def _require(self, capability: str, part: str) -> None:
        if capability not in self.reads:
            raise unsaid(part)
