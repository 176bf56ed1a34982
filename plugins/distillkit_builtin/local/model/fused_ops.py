"""The operations between the matrix products of a decoder layer: each reads its inputs once where it is compiled.

Reductions and products are done in float32, whatever the inputs are in.
"""

import functools
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

import torch
import torch._dynamo.config
from torch import Tensor
from torch._dynamo import mark_static
from torch.nn import functional

from distillkit_builtin.file_errors import first_line

log = logging.getLogger("distillkit")
P = ParamSpec("P")
T = TypeVar("T")
MOST_PROGRAMS = 64
"""Of one function: of widths, number formats, with and without gradient, of one row and of several. PyTorch's own limit
is 8, beyond which it stops compiling for good; the widths of a student and six teachers are more."""


@functools.cache
def can_compile() -> bool:
    """Whether torch.compile works on CUDA here: it needs Triton, and Triton a C compiler. Tried and logged once."""
    try:
        torch.compile(torch.sin, dynamic=True)(torch.zeros(8, device="cuda"))
    except (ImportError, RuntimeError) as error:  # torch's own errors of compilation are RuntimeErrors
        log.warning("torch.compile does not work here, so computing takes longer than it could: %s", first_line(error))
        return False
    return True


def fused(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, compiled where its first argument is on CUDA, once for all shapes; elsewhere as it is written."""
    return _compiled_on_cuda(function, by_width=False)


def fused_by_width(function: Callable[P, T]) -> Callable[P, T]:
    """As `fused`, but once for each shape of a row of its first argument [n, ...]; only how many rows varies.

    A compiler that knows a row's width reads eight numbers of two bytes at once; where it does not, it divides to find
    each one's place, and reads it alone (benchmarks/NOTES.md).
    """
    return _compiled_on_cuda(function, by_width=True)


def _compiled_on_cuda(function: Callable[P, T], *, by_width: bool) -> Callable[P, T]:
    on_cuda: Callable[P, T] = torch.compile(function, dynamic=True)

    @functools.wraps(function)
    def choose(*args: P.args, **kwargs: P.kwargs) -> T:
        first = args[0]
        # Where a loss is compiled as a whole this is a part of it: to ask for a compiler, or to mark, breaks its graph.
        if torch.compiler.is_compiling() or not isinstance(first, Tensor) or not _compiles_on(first):
            return function(*args, **kwargs)
        if by_width:
            mark_static(first, list(range(1, first.dim())))
        with _many_programs():
            return on_cuda(*args, **kwargs)

    return choose


def _compiles_on(first: Tensor) -> bool:
    return first.is_cuda and can_compile()


_of_thread = threading.local()


def _many_programs() -> AbstractContextManager[None]:
    """A context in which a function may have `MOST_PROGRAMS`: one for each thread, since it takes longer to make."""
    if not hasattr(_of_thread, "limit"):
        _of_thread.limit = torch._dynamo.config.patch(cache_size_limit=MOST_PROGRAMS)  # as PyTorch 2.6 calls it
    limit: AbstractContextManager[None] = _of_thread.limit
    return limit


@fused
def rms_norm(x: Tensor, weight: Tensor, eps: float, about_one: bool) -> Tensor:
    """RMS norm of `x` [n, hidden] over its last dimension (https://arxiv.org/abs/1910.07467).

    `about_one`: it multiplies by one more than `weight`, as Gemma's norms do.
    """
    return _rms_norm(x, weight, eps, about_one)


@fused
def add_and_norm(
    residual: Tensor,
    x: Tensor,
    behind: Tensor | None,
    before: Tensor | None,
    scale: float | None,
    eps: float,
    about_one: bool,
) -> tuple[Tensor, Tensor]:
    """`residual + scale * x`, and that as the next layer reads it; all [n, hidden].

    Of `x` there may be float32 parts [splits, n, hidden], which are added up here (`few_rows.py`).
    `behind` is the weight of the norm of `x`, `before` that of the norm of the sum, where there are such norms.
    """
    x = joined(x, residual.dtype)
    if behind is not None:
        x = _rms_norm(x, behind, eps, about_one)
    total = residual + (x if scale is None else x * scale)
    return total, total if before is None else _rms_norm(total, before, eps, about_one)


def joined(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` [n, hidden], or the sum of its float32 parts [splits, n, hidden] in `dtype`."""
    if x.dim() == 2:
        return x
    # One addition after the other, not a reduction: torch.compile puts them into the kernel that reads the sum.
    return functools.reduce(torch.add, x.unbind(0)).to(dtype)


def _rms_norm(x: Tensor, weight: Tensor, eps: float, about_one: bool) -> Tensor:
    """In `x`'s dtype. Where it is not compiled, fewer operations than PyTorch's own, and in place."""
    exact = x.float()
    mean = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).square() / x.shape[-1]
    return (exact * torch.rsqrt(mean + eps)).mul_(weight.float() + 1.0 if about_one else weight).to(x.dtype)


@fused
def norm_projections(x: Tensor, query_norm: Tensor, key_norm: Tensor, eps: float, about_one: bool) -> Tensor:
    """Queries and keys [n, q + k], each normed over its whole width, of projections `x` [n, q + k + v]."""
    widths = [len(query_norm), len(key_norm), x.shape[1] - len(query_norm) - len(key_norm)]
    query, key, _ = x.split(widths, dim=1)
    normed = [_rms_norm(query, query_norm, eps, about_one), _rms_norm(key, key_norm, eps, about_one)]
    return torch.cat(normed, dim=1)


@fused_by_width
def gated(x: Tensor, activation: str) -> Tensor:
    """`activation(gate) * up` [n, width] of `x` [n, 2 width], the gate first (https://arxiv.org/abs/2002.05202).

    The activation is SiLU or, as `gelu_pytorch_tanh`, an approximation of GELU.
    """
    gate, up = x.chunk(2, dim=-1)
    # PyTorch computes both in float32 in any case.
    active = functional.silu(gate) if activation == "silu" else functional.gelu(gate, approximate="tanh")
    return active.mul_(up)


@fused
def weighted_sum(rows: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """The sum [n, hidden] over k of `weights` [n, k] times those of `rows` [n * k, hidden] at `places` [n, k]."""
    if not rows.is_cuda:  # not compiled: one product instead of the float32 copy of all rows
        return torch.bmm(weights[:, None].to(rows.dtype), rows[places]).squeeze(1)
    return (rows[places].float() * weights[:, :, None]).sum(1).to(rows.dtype)


@fused_by_width
def logprobs_of(logits: Tensor, ids: Tensor) -> Tensor:
    """Float32 logprobs [n] of `ids` [n] under `logits` [n, vocabulary].

    An id that has no row is an error; where it is compiled, its logprob is NaN.
    """
    exact = logits.float()
    if torch.compiler.is_compiling():
        return _selected(exact, ids) - torch.logsumexp(exact, dim=1)
    if not logits.is_cuda:  # one pass over the vocabulary where `logsumexp` takes four
        return torch.log_softmax(exact, dim=1).gather(1, ids[:, None]).squeeze(1)
    return exact.gather(1, ids[:, None]).squeeze(1) - torch.logsumexp(exact, dim=1)


def _selected(exact: Tensor, ids: Tensor) -> Tensor:
    """`exact` [n, vocabulary] at `ids` [n], as a sum of one number and zeros, which a compiler adds up in passing.

    The gradient of `gather` is an array of its own, as large as `exact`: filled with zeros, written to and read again.
    """
    columns = torch.arange(exact.shape[1], device=exact.device)
    found = torch.where(columns == ids[:, None], exact, 0.0).sum(1)
    return torch.where((ids >= 0) & (ids < exact.shape[1]), found, torch.nan)


@fused_by_width
def normed_and_rotated(
    x: Tensor,
    query_norm: Tensor | None,
    key_norm: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    about_one: bool,
    query_heads: int,
) -> Tensor:
    """Heads `x` [n, heads, d], the first `query_heads` of queries and the others of keys, rotated by their positions.

    Before that they are normed, if there are weights [d] for it. Rotary embeddings in the layout of transformers, which
    pairs dimension i with i + d/2 (https://arxiv.org/abs/2104.09864); `cos` and `sin` are [n, d], the first half of the
    sines negated.
    """
    heads = x.float()
    if query_norm is not None and key_norm is not None:
        weights = [query_norm.expand(query_heads, -1), key_norm.expand(x.shape[1] - query_heads, -1)]
        heads = _rms_norm(heads, torch.cat(weights), eps, about_one)
    first, second = heads.chunk(2, dim=-1)
    return (heads * cos[:, None]).addcmul_(torch.cat([second, first], dim=-1), sin[:, None]).to(x.dtype)
