"""The adapters that requests ask for, and the layers of a model that they are on."""

import torch
from pydantic import Field

from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.training.learner import Targets
from distillkit_loopback.transport.messages import Body

ALPHA = 32
"""Of every adapter; no request names one."""


class LoraSettings(Body):
    """An adapter."""

    rank: int = Field(gt=0)
    seed: int | None = None
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True

    def layers(self, base: CausalLM) -> Targets:
        """The layers that have an adapter, by the last parts of their names. Raises ValueError if there are none."""
        if self.train_mlp and self.train_attn and not self.train_unembed:
            return "all-linear"
        head = base.model.get_output_embeddings()
        found = set()
        for name, layer in base.model.named_modules():
            if isinstance(layer, torch.nn.Linear):
                in_attention = "attn" in name or "attention" in name
                wanted = self.train_attn if in_attention else self.train_mlp
                if self.train_unembed if layer is head else wanted:
                    found.add(name.rpartition(".")[2])
        if not found:
            raise ValueError("no layer is to be trained")
        return sorted(found)
