"""A Batch as the training service takes it, and its metrics as the engine takes them."""

from typing import Any

import numpy as np

from distillkit.arrays import Array
from distillkit.training_data import Batch, Datum
from distillkit_builtin.fireworks.options import FireworksStudentOptions


def as_datum(datum: Datum) -> Any:  # noqa: ANN401 - the SDK's Datum
    """Prompt and response, shifted by one, with zeros where the prompt is predicted.

    The service's importance sampling takes no weights and sums `-ratio * advantage` over tokens, so the weights, which
    normalize over the whole optimizer step, go into the advantages: the sum is the same.
    """
    from fireworks.training.sdk import types

    full = np.concatenate([datum.prompt_ids, datum.response_ids])
    before = len(datum.prompt_ids) - 1
    advantages = datum.inputs["advantages"] * datum.inputs["weights"]
    inputs: Any = {  # the SDK turns numpy arrays into its own tensors, which its annotations do not say
        "target_tokens": np.ascontiguousarray(full[1:], dtype=np.int64),
        "logprobs": _zeros_before(before, datum.inputs["sampling_logprobs"]),
        "advantages": _zeros_before(before, advantages),
    }
    return types.Datum(model_input=types.ModelInput.from_ints(full[:-1].tolist()), loss_fn_inputs=inputs)


def as_datums(batch: Batch) -> list[Any]:
    """All of a batch, in its order."""
    return [as_datum(datum) for datum in batch.datums]


def adam_params(options: FireworksStudentOptions) -> Any:  # noqa: ANN401 - the SDK's AdamParams
    """The optimizer's options, as each step sends them."""
    from fireworks.training.sdk import types

    return types.AdamParams(
        learning_rate=options.learning_rate,
        beta1=options.adam_betas[0],
        beta2=options.adam_betas[1],
        eps=options.adam_epsilon,
        weight_decay=options.weight_decay,
        grad_clip_norm=options.grad_clip_norm,
    )


def step_metrics(forward_backward: Any, optimizer: Any) -> dict[str, float]:  # noqa: ANN401 - the SDK's results
    """The service's metrics: its `loss:sum` is `train/loss`, all others stand under `fireworks/`."""
    metrics: dict[str, float] = {}
    for name, value in {**(forward_backward.metrics or {}), **(optimizer.metrics or {})}.items():
        ours = "train/loss" if name == "loss:sum" else f"fireworks/{name.replace(':', '_')}"
        metrics[ours] = float(value)
    return metrics


def _zeros_before(zeros: int, values: Array) -> Array:
    return np.concatenate([np.zeros(zeros, np.float32), values.astype(np.float32)])
