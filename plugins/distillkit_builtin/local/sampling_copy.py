"""The copy of the student's model that samples: what trains and what samples share no tensor that training changes."""

import copy

import torch
from torch import Tensor, nn

from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.lora import ADAPTER, lora_layers
from distillkit_builtin.local.ranks.sharding import full_tensor


class SamplingCopy:
    """A model in the compute dtype, without adapter layers, that follows the student's at each `refresh`.

    To be made before the student's model is sharded or compiled. It exists only where the student samples by itself.
    """

    def __init__(self, trained: CausalLM) -> None:
        """Of `trained`; its weights are the student's only after the first `refresh` where it is a LoRA."""
        self.trained = trained
        self.causal_lm = _full_copy(trained) if trained.adapter is None else _merged_copy(trained)

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the copy to the current weights: of a LoRA `W + scaling * B A`, added in float32.

        Where the weights are sharded, every rank must call this at the same time.
        """
        copied, trained = self.causal_lm.model, self.trained.model
        if self.trained.adapter is None:
            for ours, theirs in zip(copied.parameters(), trained.parameters(), strict=True):
                ours.copy_(full_tensor(theirs))
            return
        for name, layer in lora_layers(trained):
            target = copied.get_submodule(name).get_parameter("weight")
            delta: Tensor = layer.get_delta_weight(ADAPTER)
            target.copy_(layer.get_base_layer().get_parameter("weight").float() + delta.float())


def _full_copy(source: CausalLM) -> CausalLM:
    """Of all parameters; buffers stay as they are: rotary frequencies need float32."""
    copies = {id(p): nn.Parameter(p.detach().to(source.dtype, copy=True), False) for p in source.model.parameters()}
    return CausalLM(copy.deepcopy(source.model, dict(copies)), source.device, source.dtype)


def _merged_copy(source: CausalLM) -> CausalLM:
    """Without adapter layers; it shares every tensor that the LoRA does not change."""
    adapted = list(lora_layers(source.model))
    merged = {id(layer.get_base_layer().get_parameter("weight")) for _, layer in adapted}
    shared = {id(t): t for t in (*source.model.parameters(), *source.model.buffers()) if id(t) not in merged}
    model = copy.deepcopy(source.model, shared)
    for name, layer in list(lora_layers(model)):
        model.set_submodule(name, layer.get_base_layer())
    return CausalLM(model, source.device, source.dtype)
