"""What the tests of the loopback service share: its resources, and the same data for it and for the local trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from builtin.fireworks.conftest import STUDENT, TEACHER
from builtin.local.training.sampled_batches import PLAIN
from safetensors.torch import load_file

from distillkit.arrays import frozen_array, token_ids
from distillkit.training_data import Batch, Datum
from distillkit.types import SampleKey
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer
from distillkit_builtin.losses.importance_sampling import importance_sampling
from distillkit_loopback.fireworks.service import LoopbackService

pytest.importorskip("fireworks.training.sdk")

from fireworks.training.sdk import DeploymentConfig, DeploymentManager, TrainerJobManager, types

if TYPE_CHECKING:
    from fireworks.training.sdk import FiretitanServiceClient

CAP = 0.5
ADAM: Mapping[str, float] = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
OPTIONS = replace(PLAIN, weight_decay=0.1, betas=(0.9, 0.95), grad_clip_norm=0.7)
TIME = 30


def completions(seed: int = 0) -> list[tuple[list[int], list[int], Any, Any]]:
    """Prompt, response, sampling logprobs, advantages; some tokens beyond the cap, some without advantage."""
    rng = np.random.default_rng(seed)
    result = []
    for i in range(4):
        count = int(rng.integers(1, 9))
        ids = rng.integers(5, 250, 3 + i + count).tolist()
        advantages = rng.normal(0, 1, count) * (rng.random(count) > 0.2)
        result.append((ids[: 3 + i], ids[3 + i :], rng.normal(-5, 2, count), advantages))
    return result


def as_wire(data: Sequence[tuple[list[int], list[int], Any, Any]]) -> list[types.Datum]:
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


def as_batch(data: Sequence[tuple[list[int], list[int], Any, Any]], scale: float = 1.0) -> Batch:
    datums = []
    for i, (prompt, response, sampling, advantages) in enumerate(data):
        inputs = {"sampling_logprobs": sampling, "advantages": advantages, "weights": np.full(len(response), scale)}
        arrays = {name: frozen_array(values, np.float32) for name, values in inputs.items()}
        datums.append(Datum(SampleKey("x", 0, i), token_ids(prompt), token_ids(response), arrays))
    return Batch("importance_sampling", {"ratio_log_cap": CAP}, tuple(datums), importance_sampling)


def train(client: Any, data: Any, **options: Any) -> types.ForwardBackwardOutput:
    forward = client.forward_backward(as_wire(data), "importance_sampling", loss_fn_config={"ratio_log_cap": CAP})
    step = client.optim_step(types.AdamParams(**ADAM, grad_clip_norm=0.7), **options)
    result = forward.result(TIME)
    step.result(TIME)
    return result


def weights_of(service: LoopbackService, connected: "FiretitanServiceClient", client: Any, name: str) -> Path:
    """The client's weights now, by way of a promotion."""
    saved = client.save_weights_for_sampler_ext(name)
    row = next(row for row in connected.list_checkpoints("trainer") if row["name"].endswith(saved.path))
    model = connected.promote_checkpoint(name=row["name"], output_model_id=name, base_model=STUDENT)
    return service.path(model["name"])


def adapter_of(policy: Policy, folder: Path) -> dict[str, torch.Tensor]:
    assert policy.causal_lm.adapter is not None
    policy.causal_lm.adapter.save_pretrained(str(folder))
    return load_file(folder / "adapter_model.safetensors")


def require_close(mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, atol=2e-5, rtol=1e-3)


def twin_of(source: str) -> Trainer:
    """What the service's model of rank 4 is before anything is trained."""
    return Trainer(Policy.lora(read(source), 4, 8, 0.0, 0), OPTIONS)


def read(source: str) -> CausalLM:
    return CausalLM.load(source, Device(torch.device("cpu")), torch.float32, torch.float32)


def teacher_config(deployment_id: str = "teacher", base_model: str = TEACHER) -> DeploymentConfig:
    return DeploymentConfig(
        deployment_id=deployment_id,
        base_model=base_model,
        deployment_shape=None,
        min_replica_count=1,
        max_replica_count=1,
        hot_load_bucket_type=None,
        enable_hot_load=False,
        for_training=True,
    )


def managers(service: LoopbackService) -> tuple[TrainerJobManager, DeploymentManager]:
    options: dict[str, Any] = {"api_key": "test-key", "base_url": service.base_url}
    return TrainerJobManager(**options), DeploymentManager(**options)
