"""The SDK's data as the local trainer's: one Datum a sequence, whose prompt is its first token.

The wire's datum is shifted: the input is `full[:-1]`, the target `full[1:]`, and every array has one entry a target,
zero before the response. A zero advantage has no loss and no gradient, so nothing needs to say where a prompt ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from distillkit.arrays import Array, frozen_array, token_ids
from distillkit.records import Batch, Datum, TorchLoss
from distillkit.types import SampleKey
from distillkit_builtin.local.causal_lm import PromptAndResponse
from distillkit_builtin.local.micro_batching import padded_micro_batches
from distillkit_builtin.local.policy import Policy
from distillkit_builtin.local.trainer import importance_sampling
from distillkit_loopback.transport.messages import Body

DEFAULT_OPTIONS: Mapping[str, float] = {"ratio_log_cap": 20.0}


class WireArray(Body):
    """A flat array with its shape."""

    data: tuple[float, ...]
    shape: tuple[int, ...] | None = None

    def vector(self, name: str, length: int) -> Array:
        """[length] values. Raises ValueError for another shape."""
        if len(self.data) != length or (self.shape is not None and self.shape != (length,)):
            raise ValueError(f"{name} has the shape {self.shape or len(self.data)}, not [{length}]")
        return np.asarray(self.data)


class WireChunk(Body):
    """Some of a sequence's tokens."""

    type: Literal["encoded_text"]
    tokens: tuple[int, ...]


class WireInput(Body):
    """A sequence."""

    chunks: tuple[WireChunk, ...]


class WireDatum(Body):
    """One sequence to train on."""

    model_input: WireInput
    loss_fn_inputs: Mapping[str, WireArray]

    def to_datum(self, index: int, place: int) -> Datum:
        """As the local trainer reads it; `place` is where its logprobs stand among those of the whole batch."""
        inputs = token_ids([token for chunk in self.model_input.chunks for token in chunk.tokens])
        length = len(inputs)
        arrays = {name: array.vector(name, length) for name, array in self.loss_fn_inputs.items()}
        targets = token_ids(arrays["target_tokens"])
        if length == 0 or not np.array_equal(inputs[1:], targets[:-1]):
            raise ValueError(f"datum {index}: the target tokens are not the input shifted by one")
        zeros, ones = np.zeros(length), np.ones(length)
        values = {
            "sampling_logprobs": frozen_array(arrays.get("logprobs", zeros), np.float32),
            "advantages": frozen_array(arrays.get("advantages", zeros), np.float32),
            "weights": frozen_array(arrays.get("weights", ones), np.float32),
            "place": frozen_array(np.arange(place, place + length), np.int64),
        }
        return Datum(SampleKey("wire", 0, index), inputs[:1], targets, values)


class WireBatch(Body):
    """What a forward or forward-backward request holds."""

    data: tuple[WireDatum, ...]
    loss_fn: str
    loss_fn_config: Mapping[str, float] | None = None


def cross_entropy(logprobs: Tensor, inputs: Mapping[str, Tensor], options: Mapping[str, float]) -> Tensor:
    """`-logprob`; the weights are what the caller gave."""
    return -logprobs


LOSSES: Mapping[str, TorchLoss] = {"importance_sampling": importance_sampling, "cross_entropy": cross_entropy}


@dataclass(slots=True)
class Noting:
    """A loss function that also keeps the logprobs which it was given, in the order of the data."""

    function: TorchLoss
    lengths: Sequence[int]
    noted: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Room for all of them."""
        self.noted = torch.zeros(sum(self.lengths))

    def __call__(self, logprobs: Tensor, inputs: Mapping[str, Tensor], options: Mapping[str, float]) -> Tensor:
        """The loss of each token."""
        self.noted[inputs["place"]] = logprobs.detach()
        losses: Tensor = self.function(logprobs, inputs, options)
        return losses

    def outputs(self) -> list[JsonValue]:
        """The logprobs of each datum, as they are sent."""
        parts = [part.tolist() for part in self.noted.split(list(self.lengths))]
        return [{"logprobs": {"data": part, "dtype": "float32", "shape": [len(part)]}} for part in parts]


def to_batch(wire: WireBatch) -> tuple[Batch, Noting]:
    """The batch, and what will hold its logprobs. Raises ValueError for data that cannot be trained on."""
    if wire.loss_fn not in LOSSES:
        raise ValueError(f"the loopback service does not know the loss {wire.loss_fn!r}; known: {', '.join(LOSSES)}")
    datums: list[Datum] = []
    place = 0
    for index, datum in enumerate(wire.data):
        datums.append(datum.to_datum(index, place))
        place += len(datums[-1].response_ids)
    noting = Noting(LOSSES[wire.loss_fn], [len(datum.response_ids) for datum in datums])
    # A name that the local trainer does not know makes it take the function itself.
    batch = Batch(f"loopback:{wire.loss_fn}", {**DEFAULT_OPTIONS, **(wire.loss_fn_config or {})}, tuple(datums), noting)
    return batch, noting


@torch.no_grad()
def forward_loss(policy: Policy, batch: Batch, function: TorchLoss, micro_batch_tokens: int) -> float:
    """The sum of `weights * loss` over the batch's tokens, as the trainer has it, without its backward pass."""
    total = 0.0
    lengths = [len(datum.prompt_ids) + len(datum.response_ids) for datum in batch.datums]
    for group in padded_micro_batches(lengths, micro_batch_tokens):
        datums = [batch.datums[i] for i in group]
        inputs = {name: torch.cat([torch.tensor(datum.inputs[name]) for datum in datums]) for name in datums[0].inputs}
        items = [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in datums]
        logprobs = policy.causal_lm.response_logprobs(items)
        total += float((function(logprobs, inputs, batch.options) * inputs["weights"]).sum())
    return total
