"""The SDK's data as the learner computes with them, and the losses that the service knows by name.

The wire's datum is shifted: the input is `full[:-1]`, the target `full[1:]`, and every array has one entry a target,
zero before the response. A zero advantage has no loss and no gradient, so nothing needs to say where a prompt ends.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
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
    """[T] the inputs shifted by one, and one id more."""
    arrays: Mapping[str, FloatArray]
    """[T] each, float32: `sampling_logprobs`, `advantages`, `weights`."""


class WireArray(Body):
    """A flat array with its shape."""

    data: tuple[float, ...]
    shape: tuple[int, ...] | None = None

    def vector(self, name: str, length: int) -> list[float]:
        """[length] values. Raises ValueError for another shape."""
        if len(self.data) != length or (self.shape is not None and self.shape != (length,)):
            raise ValueError(f"{name} has the shape {self.shape or len(self.data)}, not [{length}]")
        return list(self.data)


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
        length = len(inputs)
        arrays = {name: array.vector(name, length) for name, array in self.loss_fn_inputs.items()}
        targets = token_ids(arrays["target_tokens"])
        if length == 0 or not np.array_equal(inputs[1:], targets[:-1]):
            raise ValueError(f"datum {index}: the target tokens are not the input shifted by one")
        if min(inputs[0], targets.min()) < 0 or max(inputs[0], targets.max()) >= vocabulary:
            raise ValueError(f"a token id is not in the vocabulary of {vocabulary}")
        values = {
            "sampling_logprobs": arrays.get("logprobs", [0.0] * length),
            "advantages": arrays.get("advantages", [0.0] * length),
            "weights": arrays.get("weights", [1.0] * length),
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
    """`-logprob` of each target."""
    return -logprobs


LOSSES: Mapping[str, Loss] = {"importance_sampling": importance_sampling, "cross_entropy": cross_entropy}


def loss_named(name: str) -> Loss:
    """The loss that requests call so. Raises ValueError for one that the service does not have."""
    if name not in LOSSES:
        raise ValueError(f"the loopback service does not know the loss {name!r}; known: {', '.join(LOSSES)}")
    return LOSSES[name]
