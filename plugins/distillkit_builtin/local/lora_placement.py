"""Putting a LoRA on a model by PEFT, and whether that works, which is found without weights."""

from contextlib import suppress
from functools import lru_cache

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.local.model_config import read_config


def put_lora(model: PreTrainedModel, rank: int, alpha: int, dropout: float) -> PeftModel:
    """Put a LoRA on every linear layer of `model` but the head.

    Raises:
        InputError: if PEFT cannot, or would make layers that cannot be computed.
    """
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    try:
        adapted = get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError) as error:  # what PEFT raises of a layer, or an option
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        way_out = "take student.lora_dropout: 0" if dropout and "dropout" in reason else _OTHERWISE
        raise InputError(f"no LoRA can be put on {type(model).__name__}: {reason}; {way_out}") from error
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and not _gives_a_tensor(layer):
            raise InputError(
                f"no LoRA can be put on {type(model).__name__}: its layer {name!r} "
                f"({type(layer.get_base_layer()).__name__}) is no plain linear layer; {_OTHERWISE}"
            )
    return adapted


_OTHERWISE = "train all weights (student.lora_rank: 0), or another model"


def _gives_a_tensor(layer: LoraLayer) -> bool:
    """Whether the layer below the LoRA gives a tensor, to which the LoRA's is added; False for routers that give more.

    A linear layer with a forward of its own is tried, on torch's meta device, where it costs nothing.
    """
    base = layer.get_base_layer()
    if not isinstance(base, nn.Linear) or type(base).forward is nn.Linear.forward or not base.weight.is_meta:
        return True
    with suppress(TypeError, RuntimeError):  # it reads something else: no fault that can be found here
        return isinstance(base(torch.empty(1, base.in_features, device="meta", dtype=base.weight.dtype)), Tensor)
    return True


@lru_cache(maxsize=16)
def require_adaptable(source: str, rank: int, dropout: float) -> None:
    """Raise InputError if no such LoRA can be put on the model `source`; needs its config alone."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(read_config(source), trust_remote_code=False)
        put_lora(model, rank, 1, dropout)
