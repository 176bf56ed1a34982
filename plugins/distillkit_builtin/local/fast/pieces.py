"""What stands between the matrix products of a decoder layer: each function reads its inputs once where it is compiled.

Reductions and products are done in float32, whatever the inputs are in.
"""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

log = logging.getLogger("distillkit")
P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def compiles() -> bool:
    """Whether torch.compile works on CUDA here: it needs Triton, and Triton a C compiler. Tried once, told once."""
    try:
        torch.compile(torch.sin, dynamic=True)(torch.zeros(8, device="cuda"))
    except (ImportError, RuntimeError) as error:  # torch's own errors of compilation are RuntimeErrors
        reason = str(error).strip().partition("\n")[0]
        log.warning("torch.compile does not work here, so computing takes longer than it could: %s", reason)
        return False
    return True


def fused(function: Callable[P, T]) -> Callable[P, T]:
    """Compile `function` where it meets tensors on CUDA, once for all shapes; elsewhere it runs as it is written."""
    on_cuda: Callable[P, T] = torch.compile(function, dynamic=True)

    @functools.wraps(function)
    def choose(*args: P.args, **kwargs: P.kwargs) -> T:
        first = args[0]
        compiled = isinstance(first, Tensor) and first.is_cuda and compiles()
        return on_cuda(*args, **kwargs) if compiled else function(*args, **kwargs)

    return choose


@fused
def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm of `x` [n, hidden] over its last dimension (https://arxiv.org/abs/1910.07467)."""
    return functional.rms_norm(x.float(), x.shape[-1:], weight.float(), eps).to(x.dtype)


@fused
def add_norm(residual: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`residual + x`, and its RMS norm; all [n, hidden]."""
    total = residual + x
    return total, functional.rms_norm(total.float(), total.shape[-1:], weight.float(), eps).to(x.dtype)


@fused
def gated(x: Tensor) -> Tensor:
    """SwiGLU: `silu(gate) * up` [n, width] of `x` [n, 2 width], the gate first (https://arxiv.org/abs/2002.05202)."""
    gate, up = x.chunk(2, dim=-1)
    return functional.silu(gate.float()).to(x.dtype) * up


@fused
def logprobs_of(logits: Tensor, ids: Tensor) -> Tensor:
    """Float32 logprobs [n] of `ids` [n] under `logits` [n, vocabulary]."""
    exact = logits.float()
    return exact.gather(1, ids[:, None]).squeeze(1) - torch.logsumexp(exact, dim=1)


@fused
def rotated(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Heads [n, heads, d], normed by `weight` [d] if there is one, turned by their positions' `cos`, `sin` [n, d].

    Rotary embeddings in the layout of transformers, which pairs dimension i with i + d/2
    (https://arxiv.org/abs/2104.09864).
    """
    heads = x.float()
    if weight is not None:
        heads = functional.rms_norm(heads, heads.shape[-1:], weight.float(), eps)
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (heads * cos[:, None] + turned * sin[:, None]).to(x.dtype)
