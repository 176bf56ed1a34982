"""A loss on made-up distributions: whether it gives the loss of each position, with gradient. Needs torch."""

from itertools import product

import torch
from torch import Tensor

from distillkit.arrays import Array
from distillkit.errors import PluginError
from distillkit.testing.loss_proof.table_positions import TablePositions
from distillkit.testing.synthetic_batches import IDS
from distillkit.training_data import Batch


def made_up_loss(batch: Batch) -> Tensor:
    """The sum of `weights * loss` over a batch, for a student and teachers with made-up distributions."""
    if batch.token_loss is None:
        raise ValueError("the loss has no token_loss")
    inputs = {name: torch.cat([torch.tensor(each) for each in arrays]) for name, arrays in inputs_of(batch).items()}
    counted = inputs["weights"] != 0
    inputs = {name: values[counted] for name, values in inputs.items()}
    weights, sampling = inputs.pop("weights"), inputs.pop("sampling_logprobs")
    ids = torch.cat([torch.tensor(datum.response_ids) for datum in batch.datums])[counted]
    made_up = torch.Generator().manual_seed(0)
    logits = torch.randn(len(ids), IDS, generator=made_up).requires_grad_()
    teacher = torch.log_softmax(torch.randn(len(ids), IDS, generator=made_up), dim=-1)
    positions = TablePositions(logits, ids, sampling, inputs, teacher if "full" in batch.reads else None, batch.reads)
    losses: Tensor = batch.token_loss(positions, batch.options)
    return (losses * weights).sum()


def inputs_of(batch: Batch) -> dict[str, list[Array]]:
    """By name the arrays of each datum. Raises PluginError for those that cannot be laid end to end."""
    first = batch.datums[0].inputs
    for datum, (name, array) in product(batch.datums, first.items()):
        found = datum.inputs[name].shape[1:]
        if found != array.shape[1:]:
            raise PluginError(
                f"loss function {batch.loss_function!r}: its input {name!r} is {[*array.shape[1:]]} a token in one "
                f"completion and {[*found]} in another; a batch's are laid end to end, so pad them"
            )
    return {name: [datum.inputs[name] for datum in batch.datums] for name in first}
