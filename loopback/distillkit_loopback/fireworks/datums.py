"""The SDK's data as they are sent, what a learner makes of them, and its results as they are sent back."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from distillkit.arrays import token_ids
from distillkit_loopback.training.datums import Batch, Computed, Datum
from distillkit_loopback.transport.messages import Body

DEFAULT_OPTIONS: Mapping[str, float] = {"ratio_log_cap": 20.0}


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
        shapes = {"logprobs": inputs.shape, "advantages": inputs.shape, "weights": shape}
        read = {name: sent[name].read(name, shapes[name]) for name in shapes if name in sent}
        if "logprobs" in read:
            read["sampling_logprobs"] = read.pop("logprobs")
        arrays = {name: values.astype(np.float32) for name, values in read.items()}
        return Datum.checked(index, inputs, targets, arrays, vocabulary)


class WireBatch(Body):
    """What a forward or forward-backward request holds."""

    data: tuple[WireDatum, ...]
    loss_fn: str
    loss_fn_config: Mapping[str, float] | None = None

    def read(self, vocabulary: int) -> Batch:
        """What to compute; options that are not sent have their defaults. Raises ValueError as its data do."""
        data = [datum.read(index, vocabulary) for index, datum in enumerate(self.data)]
        return Batch(data, self.loss_fn, {**DEFAULT_OPTIONS, **(self.loss_fn_config or {})})


def as_sent(computed: Computed) -> JsonValue:
    """What came of a batch."""
    outputs: list[JsonValue] = [
        {"logprobs": {"data": row.flatten().tolist(), "dtype": "float32", "shape": [*row.shape]}}
        for row in computed.logprobs
    ]
    return {
        "loss_fn_output_type": "TensorDictLossReturn",
        "loss_fn_outputs": outputs,
        "metrics": {"loss:sum": computed.total, "active_tokens:sum": float(computed.active)},
    }
