"""Limits on the time steps of state space layers, kept where transformers' own forward forgets them.

Mamba 2 layers clamp the steps dt of whole sequences to `time_step_limit`; behind a cache they take one token by another
function, which does not (transformers 5.x). Sampled logprobs would then not be those of the sequence. So what the
layer's projection gives is clamped before, for one token: dt = softplus(projected + bias), whose limits are known.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_HANDLE = "_step_limit_handle"


class _Limited(Protocol):
    """What is read of such a layer."""

    time_step_limit: tuple[float, float]
    dt_bias: Tensor
    in_proj: nn.Module


def keep_step_limits(model: nn.Module) -> None:
    """Let layers that limit their time steps do so for one token too; a second call, or one on a copy, adds nothing."""
    for layer in _limited_layers(model):
        if _before not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_before, with_kwargs=True)
            layer.register_forward_hook(_after, always_call=True)


def _limited_layers(model: nn.Module) -> Iterator[nn.Module]:
    for layer in model.modules():
        low, high = getattr(layer, "time_step_limit", None) or (0.0, torch.inf)
        # With `mup_vector` the projection is scaled before the bias is added.
        known = hasattr(layer, "dt_bias") and hasattr(layer, "in_proj") and not hasattr(layer, "mup_vector")
        if known and (low > 0 or high < torch.inf):
            yield layer


def _before(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
    """On the projection as it stands now: an adapter may have put a layer of its own in its place."""
    hidden = args[0] if args else kwargs["hidden_states"]
    if hidden.shape[1] == 1:
        limited = cast(_Limited, layer)
        vars(layer)[_HANDLE] = limited.in_proj.register_forward_hook(partial(_limit, limited))


def _after(layer: nn.Module, args: object, output: object) -> None:
    handle: RemovableHandle | None = vars(layer).pop(_HANDLE, None)
    if handle is not None:
        handle.remove()


def _limit(layer: _Limited, projection: nn.Module, args: object, projected: Tensor) -> Tensor:
    """Clamps the steps, which stand last in what is projected [batch, 1, ...], a number a head."""
    rest, steps = projected.split([projected.shape[-1] - len(layer.dt_bias), len(layer.dt_bias)], dim=-1)
    low, high = (_before_softplus(limit) - layer.dt_bias.float() for limit in layer.time_step_limit)
    return torch.cat([rest, steps.float().clamp(low, high).to(projected.dtype)], dim=-1)


def _before_softplus(step: float) -> float:
    """What softplus makes `step` of: log(exp(step) - 1); softplus is the identity above 20."""
    if step <= 0:
        return -torch.inf
    return step if step > 20 else math.log(math.expm1(step))
