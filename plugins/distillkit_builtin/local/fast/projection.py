"""Linear layers that read the same input, as one product; where a LoRA stays beside their weights, with its two."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

from distillkit_builtin.local.fast.few_rows import split_tiles
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.lora.lora import ADAPTER, AdaptedLinear


@dataclass(frozen=True, slots=True)
class Projection:
    """`W x + b`, or `W x + b + up (down x)`, each of the two rounded as `AdaptedLinear` does it."""

    weight: Tensor
    """[outputs, inputs]"""
    bias: Tensor | None
    down: Tensor | None = None
    """[inner, inputs] of all adapters, one below the other; None without any, as `up`."""
    up: Tensor | None = None
    """[outputs, inner], with zeros where an output is not of that adapter's layer; scaled."""

    @classmethod
    def of(cls, parent: nn.Module, names: Sequence[str], *, adapted: bool) -> "Projection":
        """The layers of these names, side by side; `adapted`: with the LoRA that is on them, else without.

        Raises UnsupportedModelError for what is no such layer.
        """
        linears = [base_linear(parent, name) for name in names]
        biases = [linear.bias for linear in linears]
        if None in biases and any(bias is not None for bias in biases):
            raise UnsupportedModelError(f"some of its layers {', '.join(names)} have biases, some not")
        weight = side_by_side([linear.weight for linear in linears])
        bias = None if None in biases else side_by_side(biases)
        loras = [_lora(parent.get_submodule(name)) for name in names] if adapted else []
        if not any(loras):
            return cls(weight, bias)
        downs, ups = zip(*(lora for lora in loras if lora), strict=True)
        if {each.dtype for each in (*downs, *ups)} != {weight.dtype}:
            raise UnsupportedModelError("its adapter is in another number format than its weights")
        starts = [sum(len(linear.weight) for linear in linears[:i]) for i, lora in enumerate(loras) if lora]
        return cls(weight, bias, side_by_side(downs), in_blocks(ups, starts, len(weight)))

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs [n, outputs] of `x` [n, inputs]."""
        given = functional.linear(x, self.weight, self.bias)
        if self.down is None or self.up is None:
            return given
        return given.addmm_(functional.linear(x, self.down), self.up.t())

    @property
    def is_product(self) -> bool:
        """Whether it is `W x` and nothing else."""
        return self.bias is None and self.down is None

    def parts(self, x: Tensor) -> Tensor:
        """Outputs [n, outputs], or float32 parts of them [splits, n, outputs], which `add_and_norm` takes as well."""
        tiles = split_tiles(x, self.weight) if self.is_product else None
        if tiles is None:
            return self(x)
        from distillkit_builtin.local.fast.few_rows_kernel import product

        return product(x, self.weight, tiles)


def base_linear(parent: nn.Module, name: str) -> nn.Linear:
    """The layer itself, also where a LoRA is wrapped around it; raises UnsupportedModelError for another."""
    module = parent.get_submodule(name)
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if type(base) is not nn.Linear:
        raise UnsupportedModelError(f"{name} is a {type(base).__name__}")
    return base


def _lora(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter] | None:
    """The two matrices of the LoRA on a layer of a sampling copy, where there is one."""
    if not isinstance(layer, AdaptedLinear):
        return None
    return layer.lora_A[ADAPTER].get_parameter("weight"), layer.lora_B[ADAPTER].get_parameter("weight")


def side_by_side(parameters: Sequence[Tensor]) -> Tensor:
    """One tensor with all rows of `parameters`, which become views of it, unless they are that already."""
    first = parameters[0].data
    if not _lie_side_by_side(parameters):
        whole = torch.cat([parameter.data for parameter in parameters])
        for parameter, rows in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
            parameter.data = rows
        return whole
    rows = sum(map(len, parameters))
    return first.as_strided((rows, *first.shape[1:]), first.stride())


def _lie_side_by_side(parameters: Sequence[Tensor]) -> bool:
    storages = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    ends = [parameter.data_ptr() + parameter.numel() * parameter.element_size() for parameter in parameters]
    follow = all(p.data_ptr() == end for p, end in zip(parameters[1:], ends, strict=False))
    return len(storages) == 1 and follow and all(parameter.is_contiguous() for parameter in parameters)


def in_blocks(parameters: Sequence[Tensor], starts: Sequence[int], rows: int) -> Tensor:
    """One tensor of so many rows with each of `parameters` in columns of its own, from its row in `starts` on.

    Zeros stand elsewhere. They become views of it, unless they are that already.
    """
    columns = sum(parameter.shape[1] for parameter in parameters)
    lefts = [sum(p.shape[1] for p in parameters[:i]) for i in range(len(parameters))]
    places = [(start * columns + left) for start, left in zip(starts, lefts, strict=True)]
    storages = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    size = parameters[0].untyped_storage().nbytes()
    there = len(storages) == 1 and size == rows * columns * parameters[0].element_size()
    if there and all(
        p.stride() == (columns, 1) and p.storage_offset() == at for p, at in zip(parameters, places, strict=True)
    ):
        return parameters[0].data.as_strided((rows, columns), (columns, 1), 0)
    whole = parameters[0].data.new_zeros(rows, columns)
    for parameter, start, left in zip(parameters, starts, lefts, strict=True):
        block = whole[start : start + len(parameter), left : left + parameter.shape[1]]
        block.copy_(parameter.data)
        parameter.data = block
    return whole
