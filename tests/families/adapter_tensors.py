"""What was written, looked at as tensors: where they belong, and whether training moved them."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

PREFIX = "base_model.model."
"""What PEFT writes before the name of each module."""


def adapter_faults(adapter: Path, base: PreTrainedModel) -> Iterator[str]:
    """Tensors outside of the base's text decoder, and layers that did not move."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    decoder = {id(module) for module in base.get_decoder().modules()}
    inside = {name for name, module in base.named_modules() if id(module) in decoder}
    named = {name.removeprefix(PREFIX).partition(".lora_")[0] for name in tensors}
    outside = sorted(named - inside)
    if outside:
        yield f"{len(outside)} of {len(named)} adapted layers are outside of the text decoder, such as {outside[0]}"
    unmoved = sorted(name for name, tensor in tensors.items() if ".lora_B" in name and not tensor.any())
    if unmoved:
        yield f"{len(unmoved)} layers of the LoRA did not move, such as {unmoved[0]}"


def model_faults(written: Path, base: Path) -> Iterator[str]:
    """Whether nothing moved at all."""
    before, after = _tensors(base), _tensors(written)
    if before.keys() != after.keys():
        yield f"the names of {len(before.keys() ^ after.keys())} tensors are others than the base's"
    elif all(torch.equal(before[name], after[name]) for name in before):
        yield "no weight moved"


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
