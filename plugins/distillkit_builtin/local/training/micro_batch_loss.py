"""The loss of a micro-batch, and what a loss that reads the sampled tokens' logprobs alone makes of it."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from torch import Tensor

from distillkit.errors import PluginError
from distillkit.positions import TokenLoss
from distillkit.roles.student import token_at
from distillkit.training_data import Batch, Datum
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.training.counted_positions import CountedPositions
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.positions import SampledPositions


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatchLoss:
    """What is trained, and what it was at each position that counts."""

    total: Tensor
    """The sum of `weights * losses`, with gradient."""
    losses: Tensor
    """[n], without gradient."""
    logprobs: Tensor
    """[n] of the sampled ids, without gradient."""

    def bad_token(self, datums: Sequence[Datum], counted: CountedPositions) -> str:
        """Which token's logprob, or else loss, is not finite; a sum of finite losses may be infinite too."""
        for what, values in (("logprob", self.logprobs), ("loss", self.losses)):
            bad = (~torch.isfinite(values)).nonzero()
            if bad.numel():
                position = bad[0, 0] if counted.index is None else counted.index[bad[0, 0]]
                return f"{token_at(datums, int(position))}: its {what} under the student is {float(values[bad[0, 0]])}"
        return "the loss, a sum of finite numbers, is not finite; lower loss.scale"


def items_of(datums: Sequence[Datum]) -> list[PromptAndResponse]:
    """What the student reads of each."""
    return [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in datums]


def reads_logprobs_alone(reads: AbstractSet[str]) -> bool:
    """Whether a loss that `reads` this reads no distribution."""
    return reads <= {"logprobs"}


def token_loss_in(part: Batch) -> TokenLoss:
    """The batch's loss of a position. Raises PluginError for a loss that only services compute."""
    if part.token_loss is None:
        raise PluginError(f"the loss {part.loss_function!r} has no token_loss, which the local student needs")
    return part.token_loss


def sampled_loss(policy: Policy, part: Batch, counted: CountedPositions) -> MicroBatchLoss:
    """The loss of a micro-batch by the sampled ids' logprobs: no distribution is kept."""
    token_loss = token_loss_in(part)
    logprobs = policy.logprobs(items_of(part.datums), counted.index)
    losses: Tensor = token_loss(SampledPositions(logprobs, counted.sampling_logprobs, counted.inputs), part.options)
    return MicroBatchLoss((losses * counted.weights).sum(), losses.detach(), logprobs.detach())
