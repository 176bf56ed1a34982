"""What a learner computes on, whatever the wire looks like, and the losses that services know by name.

A datum is shifted: the input is `full[:-1]`, the target `full[1:]`, and every array has one entry a target, zero before
the response. A zero advantage has no loss and no gradient, so nothing needs to say where a prompt ends.
`cross_entropy` also takes K targets and K weights at each position, [T, K], which may be any ids.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import FloatArray, IntArray, frozen_array


@dataclass(frozen=True, slots=True, eq=False)
class Datum:
    """One sequence to train on, of T inputs."""

    inputs: IntArray
    """[T]"""
    targets: IntArray
    """[T] the inputs shifted by one, and one id more; or [T, K]."""
    arrays: Mapping[str, FloatArray]
    """Float32: `sampling_logprobs`, `advantages` [T], `weights`, as the targets are."""

    @classmethod
    def checked(
        cls, index: int, inputs: IntArray, targets: IntArray, sent: Mapping[str, FloatArray], vocabulary: int
    ) -> "Datum":
        """Datum number `index`; arrays that were not sent are zeros, weights ones.

        Raises ValueError for arrays of other lengths, unshifted targets, and ids that are unknown.
        """
        shapes = {"sampling_logprobs": inputs.shape, "advantages": inputs.shape, "weights": targets.shape}
        if not targets.size or targets.shape[:1] != inputs.shape:
            raise ValueError(f"datum {index}: {len(targets)} target tokens for {len(inputs)} inputs")
        if targets.ndim == 1 and not np.array_equal(inputs[1:], targets[:-1]):
            raise ValueError(f"datum {index}: the target tokens are not the input shifted by one")
        if min(inputs[0], targets.min()) < 0 or max(inputs[0], targets.max()) >= vocabulary:
            raise ValueError(f"a token id is not in the vocabulary of {vocabulary}")
        arrays = {}
        for name, shape in shapes.items():
            values = sent.get(name, np.ones(shape) if name == "weights" else np.zeros(shape))
            if values.shape != shape:
                raise ValueError(f"datum {index}: {name} has the shape {[*values.shape]}, not {[*shape]}")
            arrays[name] = frozen_array(values, np.float32)
        return cls(inputs, targets, arrays)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one forward or forward-backward computes on."""

    data: Sequence[Datum]
    loss: str
    options: Mapping[str, float]

    def active(self) -> int:
        """How many tokens count for `num_loss_tokens`: those with an advantage, or with a weight of any target."""
        name = "advantages" if self.loss == "importance_sampling" else "weights"
        return sum(int((each.arrays[name].reshape(len(each.inputs), -1) != 0).any(axis=1).sum()) for each in self.data)

    def averaged(self) -> "Batch":
        """The same with each sequence's weights divided by their sum."""
        data = []
        for each in self.data:
            weights = each.arrays["weights"]
            divided = frozen_array(weights / max(float(weights.sum()), 1e-9), np.float32)
            data.append(replace(each, arrays={**each.arrays, "weights": divided}))
        return replace(self, data=data)


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What came of a batch; one tensor a datum, as its targets are."""

    total: float
    """The sum of `weights * loss`."""
    active: int
    """Tokens, as `Batch.active` counts."""
    logprobs: Sequence[Tensor]
    losses: Sequence[Tensor]
    """Of each token, without its weight."""


TokenLosses = Callable[[Tensor, Mapping[str, Tensor], Mapping[str, float]], Tensor]
"""`(logprobs, arrays, options) -> losses`, all of one shape: one value a token."""


def importance_sampling(logprobs: Tensor, arrays: Mapping[str, Tensor], options: Mapping[str, float]) -> Tensor:
    """`-exp(min(logprob - sampling_logprob, ratio_log_cap)) * advantage`, gradient through `logprob` only."""
    log_ratio = torch.clamp(logprobs - arrays["sampling_logprobs"], max=options["ratio_log_cap"])
    return -torch.exp(log_ratio) * arrays["advantages"]


def cross_entropy(logprobs: Tensor, arrays: Mapping[str, Tensor], options: Mapping[str, float]) -> Tensor:
    """`-logprob` of each target, of which a position may have several."""
    return -logprobs


LOSSES: Mapping[str, TokenLosses] = {"importance_sampling": importance_sampling, "cross_entropy": cross_entropy}


def loss_named(name: str) -> TokenLosses:
    """The loss that requests call so. Raises ValueError for one that no service has."""
    if name not in LOSSES:
        raise ValueError(f"the loopback service does not know the loss {name!r}; known: {', '.join(LOSSES)}")
    return LOSSES[name]


def require_targets(loss: str, data: Sequence[Datum]) -> None:
    """Raise ValueError for several targets at a position where the loss has one."""
    if loss != "cross_entropy" and any(datum.targets.ndim == 2 for datum in data):
        raise ValueError(f"{loss} takes one target a position, and there are several")
