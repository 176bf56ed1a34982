"""Which token is sampled, from the logits of one position."""

from collections.abc import Sequence

import torch
from torch import Tensor

from distillkit_loopback.sampling_fields import SamplingFields


def choose(
    logits: Tensor, uniform: float, params: SamplingFields, prompt: Sequence[int] = (), sampled: Sequence[int] = ()
) -> int:
    """The id that `uniform` in [0, 1) picks from `logits` [vocabulary]; the argmax at temperature 0.

    The distribution is that at the temperature, without what top-k, top-p and min-p leave out; `prompt` and `sampled`
    are the tokens that came before, for penalties.
    """
    if params.penalizes:
        logits = torch.from_numpy(params.penalized(logits.numpy(), prompt, sampled)).float()
    if params.temperature == 0:
        return int(logits.argmax())
    cumulative = torch.softmax(filtered(logits / params.temperature, params), dim=0).cumsum(0)
    target = torch.tensor(uniform, dtype=cumulative.dtype) * cumulative[-1]
    return min(int(torch.searchsorted(cumulative, target, right=True)), len(logits) - 1)


def filtered(logits: Tensor, params: SamplingFields) -> Tensor:
    """[vocabulary] the logits, minus infinity where min-p, top-k and then top-p leave a token out.

    Tokens of equal logits stay or go together.
    """
    if params.min_p:
        logits = logits.masked_fill(
            torch.softmax(logits, 0) < params.min_p * torch.softmax(logits, 0).max(), -torch.inf
        )
    if params.top_k and params.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
    if params.top_p < 1.0:
        ordered = logits.sort(descending=True).values
        probabilities = torch.softmax(ordered, dim=0)
        before = probabilities.cumsum(0) - probabilities
        before[0] = 0.0  # the best token always stays
        logits = logits.masked_fill(logits < ordered[before < params.top_p][-1], -torch.inf)
    return logits
