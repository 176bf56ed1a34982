"""The loss functions that the local student knows by name, one value a token."""

from collections.abc import Mapping

import torch
from torch import Tensor

from distillkit.records import TorchLoss


def importance_sampling(logprobs: Tensor, inputs: Mapping[str, Tensor], options: Mapping[str, float]) -> Tensor:
    """`-exp(min(logprob - sampling_logprob, ratio_log_cap)) * advantage`, gradient through `logprob` only."""
    log_ratio = torch.clamp(logprobs - inputs["sampling_logprobs"], max=options["ratio_log_cap"])
    return -torch.exp(log_ratio) * inputs["advantages"]


FUNCTIONS: Mapping[str, TorchLoss] = {"importance_sampling": importance_sampling}
