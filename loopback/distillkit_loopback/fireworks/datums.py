"""The SDK's data as the learner computes with them, and the losses that the service knows by name.

The wire's datum is shifted: the input is `full[:-1]`, the target `full[1:]`, and every array has one entry a target,
zero before the response. A zero advantage has no loss and no gradient, so nothing needs to say where a prompt ends.
`cross_entropy` also takes K targets and K weights at each position, [T, K], which may be any ids.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distillkit.arrays import FloatArray, IntArray, frozen_array, token_ids
from distillkit_loopback.transport.messages import Body

DEFAULT_OPTIONS: Mapping[str, float] = {"ratio_log_cap": 20.0}


@dataclass(frozen=True, slots=True, eq=False)
class Datum:
    """One sequence to train on, of T inputs."""

    inputs: IntArray
    """[T]"""
    targets: IntArray
    """[T] the inputs shifted by one, and one id more; or [T, K]."""
    arrays: Mapping[str, FloatArray]
    """Float32: `sampling_logprobs`, `advantages` [T], `weights`, as the targets are."""


class WireArray(Body):
    """A flat array with its shape."""

    data: tuple[float, ...]
    shape: tuple[int, ...] | None = None

    def read(self, name: str, *shapes: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """The values in one of these shapes. Raises ValueError for another shape."""
        shape = (len(self.data),) if self.shape is None else self.shape
        if shape not in shapes or math.prod(shape) != len(self.data):
            wanted = " or ".join(str([*each]) for each in shapes)
            raise ValueError(f"{name} has the shape {[*shape]} and {len(self.data)} values, not {wanted}")
        return np.array(self.data, np.float64).reshape(shape)


class WireChunk(Body):
    """Some of a sequence's tokens."""

    type: Literal["encoded_text"]
    tokens: tuple[int, ...]


class WireInput(Body):
    """A sequence."""

    chunks: tuple[WireChunk, ...]


class WireDatum(Body):
    """One sequence to train on, as it is sent."""

    model_input: WireInput
    loss_fn_inputs: Mapping[str, WireArray]

    def read(self, index: int, vocabulary: int) -> Datum:
        """The sequence. Raises ValueError for arrays of other lengths, unshifted targets, and ids that are unknown."""
        inputs = token_ids([token for chunk in self.model_input.chunks for token in chunk.tokens])
        sent = self.loss_fn_inputs
        target_shape = sent["target_tokens"].shape or ()
        shape = (len(inputs), target_shape[1]) if len(target_shape) == 2 else (len(inputs),)
        targets = token_ids(sent["target_tokens"].read("target_tokens", shape).astype(np.int64))
        shifted = targets.ndim == 2 or np.array_equal(inputs[1:], targets[:-1])
        if not targets.size or not shifted:
            raise ValueError(f"datum {index}: the target tokens are not the input shifted by one")
        if min(inputs[0], targets.min()) < 0 or max(inputs[0], targets.max()) >= vocabulary:
            raise ValueError(f"a token id is not in the vocabulary of {vocabulary}")
        rows = (len(inputs),)
        values = {
            "sampling_logprobs": sent["logprobs"].read("logprobs", rows) if "logprobs" in sent else np.zeros(rows),
            "advantages": sent["advantages"].read("advantages", rows) if "advantages" in sent else np.zeros(rows),
            "weights": sent["weights"].read("weights", shape) if "weights" in sent else np.ones(shape),
        }
        return Datum(inputs, targets, {name: frozen_array(array, np.float32) for name, array in values.items()})


class WireBatch(Body):
    """What a forward or forward-backward request holds."""

    data: tuple[WireDatum, ...]
    loss_fn: str
    loss_fn_config: Mapping[str, float] | None = None

    @property
    def options(self) -> Mapping[str, float]:
        """The loss's options, those that are not sent by their defaults."""
        return {**DEFAULT_OPTIONS, **(self.loss_fn_config or {})}


Loss = Callable[[Tensor, Mapping[str, Tensor], Mapping[str, float]], Tensor]
"""`(logprobs, arrays, options) -> losses`, all of one shape: one value a token."""


def importance_sampling(logprobs: Tensor, arrays: Mapping[str, Tensor], options: Mapping[str, float]) -> Tensor:
    """`-exp(min(logprob - sampling_logprob, ratio_log_cap)) * advantage`, gradient through `logprob` only."""
    log_ratio = torch.clamp(logprobs - arrays["sampling_logprobs"], max=options["ratio_log_cap"])
    return -torch.exp(log_ratio) * arrays["advantages"]


def cross_entropy(logprobs: Tensor, arrays: Mapping[str, Tensor], options: Mapping[str, float]) -> Tensor:
    """`-logprob` of each target, of which a position may have several."""
    return -logprobs


LOSSES: Mapping[str, Loss] = {"importance_sampling": importance_sampling, "cross_entropy": cross_entropy}


def loss_named(name: str) -> Loss:
    """The loss that requests call so. Raises ValueError for one that the service does not have."""
    if name not in LOSSES:
        raise ValueError(f"the loopback service does not know the loss {name!r}; known: {', '.join(LOSSES)}")
    return LOSSES[name]


def require_targets(loss: str, data: Sequence[Datum]) -> None:
    """Raise ValueError for several targets at a position where the loss has one."""
    if loss != "cross_entropy" and any(datum.targets.ndim == 2 for datum in data):
        raise ValueError(f"{loss} takes one target a position, and there are several")
