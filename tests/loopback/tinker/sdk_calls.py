"""What the tests of the Tinker service share: data for it, and calls of the SDK with a limit."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loopback.tinker.conftest import MODEL

pytest.importorskip("tinker")
from tinker import types

if TYPE_CHECKING:
    from tinker import ServiceClient, TrainingClient

TIME = 20
ADAM: dict[str, float] = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
PROMPT = [1, 70, 80, 90, 75]
Data = Sequence[tuple[list[int], list[int], Any, Any]]


def completions(seed: int = 0) -> Data:
    """Prompt, response, sampling logprobs, advantages; of different lengths."""
    rng = np.random.default_rng(seed)
    data = []
    for i in range(3):
        count = int(rng.integers(2, 6))
        ids = rng.integers(5, 250, 3 + i + count).tolist()
        data.append((ids[: 3 + i], ids[3 + i :], rng.normal(-5, 0.5, count), rng.normal(0, 1, count)))
    return data


def as_wire(data: Data) -> list[types.Datum]:
    datums = []
    for prompt, response, sampling, advantages in data:
        full, zeros = [*prompt, *response], np.zeros(len(prompt) - 1)
        inputs = {
            "target_tokens": np.asarray(full[1:], np.int64),
            "logprobs": np.concatenate([zeros, sampling]).astype(np.float32),
            "advantages": np.concatenate([zeros, advantages]).astype(np.float32),
        }
        datums.append(types.Datum(model_input=types.ModelInput.from_ints(full[:-1]), loss_fn_inputs=inputs))
    return datums


def trainer(client: "ServiceClient", rank: int = 4, **options: Any) -> "TrainingClient":
    settings: dict[str, Any] = {"seed": 7, "train_unembed": False, **options}
    return client.create_lora_training_client(MODEL, rank, **settings).result(TIME)


def train(client: "TrainingClient", data: Data, **adam: float) -> tuple[types.ForwardBackwardOutput, dict[str, float]]:
    """One step; what came of it, and the metrics of the optimizer."""
    forward = client.forward_backward(as_wire(data), "importance_sampling")
    step = client.optim_step(types.AdamParams(**{**ADAM, **adam}))
    return forward.result(TIME), step.result(TIME).metrics or {}


def logprobs_of(client: "TrainingClient", data: Data) -> list[list[float]]:
    """Of all targets of the data, under the weights now."""
    outputs = client.forward(as_wire(data), "importance_sampling").result(TIME).loss_fn_outputs
    return [each["logprobs"].tolist() for each in outputs]


def prompt_of(ids: Sequence[int]) -> types.ModelInput:
    return types.ModelInput.from_ints(list(ids))


def sample(client: Any, prompt: Sequence[int] = PROMPT, count: int = 1, **options: Any) -> types.SampleResponse:
    known = types.SamplingParams.model_fields
    params = {"max_tokens": 6, "seed": 11, **{name: value for name, value in options.items() if name in known}}
    rest = {name: value for name, value in options.items() if name not in known}
    response: types.SampleResponse = client.sample(
        prompt_of(prompt), count, types.SamplingParams(**params), **rest
    ).result(TIME)
    return response


def scores(client: Any, ids: Sequence[int], **options: Any) -> list[float | None]:
    found: list[float | None] = client.compute_logprobs(prompt_of(ids), **options).result(TIME)
    return found


def as_numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
