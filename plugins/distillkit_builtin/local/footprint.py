"""How large a model is, without its weights: its modules are made on torch's meta device, which holds no data."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import AutoModelForCausalLM

from distillkit_builtin.local.device import resolve_device, resolve_dtype
from distillkit_builtin.local.requirements import DTypeName, read_config


@dataclass(frozen=True, slots=True)
class Footprint:
    """A model on a device."""

    parameters: int
    device: str
    dtype: torch.dtype

    @property
    def weight_bytes(self) -> int:
        """The weights once, in the compute dtype."""
        return self.parameters * self.dtype.itemsize

    def describe(self) -> str:
        """For `distillkit check`."""
        number = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.parameters / 1e6:,.0f} M parameters, {self.weight_bytes / 1e9:.2f} GB as {number} on {self.device}"
        )


@lru_cache(maxsize=16)
def parameter_count(source: str) -> int:
    """How many parameters the model has, tied ones once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(read_config(source))
    return sum(parameter.numel() for parameter in model.parameters())


def footprint(source: str, device: str, dtype: DTypeName) -> Footprint:
    """The size of `source` on the device and in the dtype that these options lead to."""
    where = resolve_device(device)
    return Footprint(parameter_count(source), str(where), resolve_dtype(dtype, where))
