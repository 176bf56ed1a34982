"""A Batch as the training service takes it, and its metrics as the engine takes them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distillkit.arrays import Array
from distillkit.errors import PluginError
from distillkit.token_arrays import NO_ID
from distillkit.training_data import Batch, Datum
from distillkit_builtin.fireworks.options import FireworksStudentOptions


def as_datums(batch: Batch) -> list[Any]:
    """All of a batch, in its order. Raises PluginError for data that the service's loss function does not read."""
    inputs = LOSSES[batch.loss_function]
    return [_as_datum(datum, inputs, batch.loss_function) for datum in batch.datums]


def _as_datum(datum: Datum, inputs: Callable[[Datum], dict[str, Array]], loss: str) -> Any:  # noqa: ANN401 - the SDK's
    """Prompt and response, shifted by one, with zeros where the prompt is predicted."""
    from fireworks.training.sdk import types

    before = len(datum.prompt_ids) - 1
    try:
        arrays: Any = {name: _zeros_before(before, values) for name, values in inputs(datum).items()}
    except KeyError as error:
        raise PluginError(
            f"{datum}: the service's {loss} reads {error}, which the loss does not put into its data"
        ) from error
    full = np.concatenate([datum.prompt_ids, datum.response_ids])
    # The SDK turns numpy arrays into its own tensors, which its annotations do not say.
    arrays.setdefault("target_tokens", np.ascontiguousarray(full[1:], dtype=np.int64))
    return types.Datum(model_input=types.ModelInput.from_ints(full[:-1].tolist()), loss_fn_inputs=arrays)


def _importance_sampling(datum: Datum) -> dict[str, Array]:
    """Weights are in the advantages: the service takes none, and sums `-ratio * advantage` over tokens."""
    advantages = datum.inputs["advantages"] * datum.inputs["weights"]
    return {
        "logprobs": datum.inputs["sampling_logprobs"].astype(np.float32),
        "advantages": advantages.astype(np.float32),
    }


def _cross_entropy(datum: Datum) -> dict[str, Array]:
    """[R, K] targets and their weights: the service sums `-weight * logprob`. Where there is none: id 0, weight 0."""
    ids, each = datum.inputs["target_ids"].astype(np.int64), datum.inputs["weights"][:, None]
    there = (ids != NO_ID) & (each != 0)
    weights = np.where(there, datum.inputs["target_weights"], 0) * each
    return {"target_tokens": np.where(there, ids, 0), "weights": weights.astype(np.float32)}


LOSSES: Mapping[str, Callable[[Datum], dict[str, Array]]] = {
    "importance_sampling": _importance_sampling,
    "cross_entropy": _cross_entropy,
}
"""The service's loss functions, and what each reads of a datum. The weights normalize over the whole optimizer step."""


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
    """As many rows of zeros, then the values [R, ...]."""
    return np.concatenate([np.zeros((zeros, *values.shape[1:]), values.dtype), values])
