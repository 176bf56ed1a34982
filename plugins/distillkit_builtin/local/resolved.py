"""What a model in this process was resolved to: device, number format, how it is computed, how large it is."""

from collections.abc import Iterable

import torch
from pydantic import JsonValue

from distillkit_builtin.local.inference.inference_model import InferenceModel
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy


def resolved_model(causal_lm: CausalLM) -> dict[str, JsonValue]:
    """Of a frozen model; a LoRA of the student's that sits on it is not counted."""
    frozen = (parameter for parameter in causal_lm.model.parameters() if not parameter.requires_grad)
    return {**_computed(causal_lm), "parameters": _count(frozen)}


def resolved_policy(policy: Policy, sampling: InferenceModel | None) -> dict[str, JsonValue]:
    """Of a student: what is trained, and of what it samples with; without a sampling copy another sampler does."""
    return {
        **_computed(policy.causal_lm),
        "parameters": _count(policy.causal_lm.model.parameters()),
        "trained_parameters": _count(policy.trained.values()),
        "trained_dtype": ", ".join(sorted({_name(parameter.dtype) for parameter in policy.trained.values()})),
        "sequences": "packed" if policy.packs else "padded",
        **({} if sampling is None else {"sampling": resolved_forward(sampling)}),
    }


def resolved_forward(inference: InferenceModel) -> str:
    """Which of the options `forward: fast | transformers` it came to."""
    return "transformers" if inference.backbone is None else "fast"


def _computed(causal_lm: CausalLM) -> dict[str, JsonValue]:
    device = causal_lm.device.device
    kind: dict[str, JsonValue] = {}
    if device.type == "cuda":
        kind["device_name"] = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        kind["threads"] = torch.get_num_threads()  # another number of them adds up in another order
    return {"device": str(device), **kind, "dtype": _name(causal_lm.dtype)}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _count(parameters: Iterable[torch.Tensor]) -> int:
    """How many numbers they are, each tied one once; what bitsandbytes packs two to a byte counts as it was."""
    return sum(
        int(state.shape.numel())
        if (state := getattr(parameter, "quant_state", None)) is not None
        else parameter.numel()
        for parameter in parameters
    )
