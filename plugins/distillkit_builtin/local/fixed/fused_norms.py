"""Norms of a step in one kernel each, where their own forward starts eight to ten: torch.compile of each class's own.

So whatever a family's norm does is what is computed, and in its order of rounding. One program serves all norms of a
class and a width, and any number of rows. A model's norms are replaced while a step is run or recorded, and never else:
what is trained and scored is computed by the class itself.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import maybe_mark_dynamic

from distillkit_builtin.local.model.fused_ops import can_compile

Forward = Callable[[nn.Module, Tensor], Tensor]
"""A class's own forward, of a module and rows [n, width]."""
MOST_PROGRAMS = 64
"""Of one class: of its widths, strides, dtypes and devices. PyTorch's own limit is 8, beyond which it stops compiling;
a run may have a student and several teachers of one family."""


@dataclass(frozen=True, slots=True)
class FusedNorms:
    """Computes norms by what `compiler` makes of the forward of their class."""

    compiler: Callable[[Forward], Forward]
    _programs: dict[Callable[..., Any], Forward] = field(default_factory=dict)
    """By a class's forward."""

    @contextmanager
    def in_the_place_of(self, model: nn.Module) -> Iterator[int]:
        """A context in which the norms of `model` are computed so; gives how many there are.

        Raises:
            RuntimeError: where one that is called in it cannot be compiled.
        """
        norms = [module for module in model.modules() if _is_norm(module)]
        try:
            for norm in norms:
                setattr(norm, "forward", self._fused(norm))  # noqa: B010 - a method of one object
            with torch._dynamo.config.patch(
                cache_size_limit=MOST_PROGRAMS
            ):  # as PyTorch 2.6 calls it, and later ones too
                yield len(norms)
        finally:
            for norm in norms:
                vars(norm).pop("forward", None)

    def _fused(self, norm: nn.Module) -> Callable[..., Any]:
        """What is called instead of the forward of `norm`."""
        plain, own = norm.forward, type(norm).forward
        program = self._programs.get(own)
        if program is None:
            program = self._programs[own] = self.compiler(own)
        widths = {parameter.shape[0] for parameter in norm.parameters()}

        def forward(x: Tensor, *others: object, **named: object) -> object:
            if others or named or widths - {x.shape[-1]}:  # a gate or a residual beside, or weights of another form
                return plain(x, *others, **named)
            rows = x.reshape(-1, x.shape[-1])
            count = len(rows)
            if count == 1:
                rows = torch.cat([rows, rows])  # programs for any number are for two or more
            maybe_mark_dynamic(rows, 0)
            return program(norm, rows)[:count].reshape(x.shape)

        return forward


def norms_on_cuda() -> FusedNorms | None:
    """Compiled for a GPU; None where nothing can be compiled, which is logged once."""
    return FusedNorms(_compiled) if can_compile() else None


@functools.cache  # so that models of one family share programs
def _compiled(forward: Forward) -> Forward:
    """Dimensions that are not marked are constants: a width that varied would make a slower kernel.

    Between two operations it rounds as they do, so that logprobs differ as little as can be from those of training.
    """
    return torch.compile(forward, dynamic=False, options={"emulate_precision_casts": True})


def _is_norm(module: nn.Module) -> bool:
    """Whether it is one by its name, of many operations, with weights [width] or none, and computed by its class."""
    ours = "Norm" in type(module).__name__ and not any(module.children()) and "forward" not in vars(module)
    if not ours or type(module).forward.__module__.startswith("torch."):  # PyTorch's own are one kernel already
        return False
    weights = list(module.parameters())
    return len({weight.shape for weight in weights}) <= 1 and all(
        type(weight) is nn.Parameter and weight.dim() == 1 for weight in weights
    )
