"""The positions of a micro-batch that a loss gets to see: those of weight other than 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import IntArray
from distillkit.training_data import Datum


@dataclass(frozen=True, slots=True, eq=False)
class CountedPositions:
    """The response positions of some data that count, end to end [n], with what the loss reads there."""

    index: Tensor | None
    """[n] where they stand among all response positions; None: all count."""
    owners: IntArray
    """[n] the number of the datum that each is of."""
    weights: Tensor
    """[n]."""
    sampling_logprobs: Tensor
    """[n]."""
    inputs: Mapping[str, Tensor]
    """[n, ...] by name: what `Loss.inputs` gave."""

    def __len__(self) -> int:
        """How many count: n."""
        return len(self.owners)

    @classmethod
    def of(cls, datums: Sequence[Datum], device: torch.device) -> "CountedPositions":
        """Those of `datums`, at least one; tensors are on `device`."""
        inputs = {name: torch.cat([torch.tensor(datum.inputs[name]) for datum in datums]) for name in datums[0].inputs}
        owners = np.repeat(np.arange(len(datums)), [len(datum.response_ids) for datum in datums])
        counted = inputs["weights"].nonzero()[:, 0]
        index = None
        if len(counted) < len(owners):
            inputs = {name: values[counted] for name, values in inputs.items()}
            owners, index = owners[counted.numpy()], counted.to(device)
        moved = {name: values.to(device) for name, values in inputs.items()}
        weights, sampling = moved.pop("weights"), moved.pop("sampling_logprobs")
        return cls(index, owners, weights, sampling, moved)
