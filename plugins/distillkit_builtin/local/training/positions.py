"""What the local student gives the loss of a token to see."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

import torch
from torch import Tensor

from distillkit.positions import unsaid
from distillkit_builtin.local.model.fused_ops import logprobs_of
from distillkit_builtin.local.training.distributions import entropy_of, known_log_softmax


@dataclass(frozen=True, slots=True)
class SampledPositions:
    """Positions of a loss that reads the sampled tokens' logprobs alone: no distribution is ever there."""

    logprobs: Tensor
    """[n], float32, with gradient."""
    sampling_logprobs: Tensor
    """[n]."""
    inputs: Mapping[str, Tensor]
    """[n, ...] by name."""

    @property
    def student(self) -> NoReturn:
        """Not there."""
        raise unsaid("student")

    @property
    def teacher(self) -> NoReturn:
        """Not there."""
        raise unsaid("teacher")

    @property
    def entropy(self) -> NoReturn:
        """Not there."""
        raise unsaid("entropy")

    def at(self, ids: Tensor) -> NoReturn:
        """Not there."""
        raise unsaid("at()")


@dataclass(frozen=True, eq=False)
class ChunkPositions:
    """A chunk of positions with the student's logits: each number is computed when the loss reads it.

    `student`, `entropy` and `teacher` are of the ids that all sides know; `logprobs` and `at()`, as samplers and
    scorers have them, of all rows of the head.
    """

    logits: Tensor
    """[n, rows], with gradient."""
    known: int
    """V: ids from here on get no probability."""
    ids: Tensor
    """[n] the sampled ones."""
    sampling_logprobs: Tensor
    """[n]."""
    inputs: Mapping[str, Tensor]
    """[n, ...] by name."""
    teacher_logprobs: Tensor | None
    """[n, V] of the row's mixture of teachers; None: the loss does not need it."""
    reads: frozenset[str]
    """What the loss says that it reads."""

    @property
    def logprobs(self) -> Tensor:
        """[n], float32, with gradient."""
        self._require("logprobs", "logprobs")
        return self.sampled

    @cached_property
    def sampled(self) -> Tensor:
        """As `logprobs`, whatever the loss reads: what sampled is compared with what trains."""
        if self._shared is not None:
            return self._shared.gather(1, self.ids[:, None])[:, 0]
        return logprobs_of(self.logits, self.ids)

    @property
    def student(self) -> Tensor:
        """[n, V], float32, with gradient."""
        self._require("distribution", "student")
        return self._student

    @property
    def teacher(self) -> Tensor:
        """[n, V], float32."""
        if self.teacher_logprobs is None:
            raise unsaid("teacher")
        return self.teacher_logprobs

    @cached_property
    def entropy(self) -> Tensor:
        """[n] in nats, with gradient."""
        self._require("entropy", "entropy")
        return entropy_of(self._student)

    def at(self, ids: Tensor) -> Tensor:
        """[n, K] with gradient; minus infinity where an id is -1, or the head has no row for it."""
        self._require("at_ids", "at()")
        none = (ids < 0) | (ids >= self.logits.shape[1])
        some = ids.masked_fill(none, 0)
        if self._shared is not None:
            found = self._shared.gather(1, some)
        else:
            found = self.logits.gather(1, some).float() - self._log_normalizer
        return found.masked_fill(none, -torch.inf)

    def student_logprobs(self) -> Tensor | None:
        """[n, V] as `student`, without gradient; None where the loss reads nothing that is made of it."""
        return self._student.detach() if self._reads_distribution else None

    @cached_property
    def _student(self) -> Tensor:
        return known_log_softmax(self.logits, self.known)

    @property
    def _shared(self) -> Tensor | None:
        """[n, rows] log-softmax of all rows, where it is there in any case."""
        return self._student if self._reads_distribution and self.known == self.logits.shape[1] else None

    @property
    def _reads_distribution(self) -> bool:
        return bool(self.reads & {"distribution", "entropy"})

    @cached_property
    def _log_normalizer(self) -> Tensor:
        return torch.logsumexp(self.logits.float(), dim=1, keepdim=True)

    def _require(self, capability: str, part: str) -> None:
        if capability not in self.reads:
            raise unsaid(part)
