"""Student `tinker` beside the local trainer, from one adapter in float32: same loss, same gradient, same weights."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from builtin.http.serving import opened
from builtin.local.training.sampled_batches import PLAIN
from builtin.tinker.runs import STUDENT
from distillkit.arrays import frozen_array, token_ids
from distillkit.testing import make_context
from distillkit.training_data import Batch, Datum
from distillkit.types import SampleKey
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer
from distillkit_builtin.losses.importance_sampling import importance_sampling
from distillkit_builtin.tinker.student import TinkerStudent

pytest.importorskip("tinker")
if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService

RANK, SEED = 4, 0
OPTIONS = replace(PLAIN, weight_decay=0.1, betas=(0.9, 0.95))


def batch(seed: int, lengths: Sequence[tuple[int, int]]) -> Batch:
    """Completions with these numbers of prompt and response tokens, some without advantage or weight."""
    rng = np.random.default_rng(seed)
    datums = []
    for i, (prompt, count) in enumerate(lengths):
        ids = rng.integers(5, 250, prompt + count)
        arrays = {
            "sampling_logprobs": rng.normal(-5, 0.3, count),
            "advantages": rng.normal(0, 1, count) * (rng.random(count) > 0.2),
            "weights": rng.choice([0.0, 0.25, 1.0], count, p=[0.2, 0.3, 0.5]),
        }
        inputs = {name: frozen_array(values, np.float32) for name, values in arrays.items()}
        datums.append(Datum(SampleKey("x", 0, i), token_ids(ids[:prompt]), token_ids(ids[prompt:]), inputs))
    return Batch("importance_sampling", {}, tuple(datums), importance_sampling)


BATCHES = (batch(1, [(3, 4), (7, 2), (4, 9)]), batch(2, [(5, 5)]), batch(3, [(3, 2), (3, 2), (9, 8), (4, 1)]))


def twin(source: str) -> Trainer:
    """What the service's model is before anything is trained."""
    base = CausalLM.load(source, Device(torch.device("cpu")), torch.float32, torch.float32)
    return Trainer(Policy.lora(base, RANK, 32, 0.0, SEED), OPTIONS)


@asynccontextmanager
async def student_at(service: "TinkerService", tokenizer: str, **options: Any) -> AsyncIterator[TinkerStudent]:
    settings: dict[str, Any] = {"lora_rank": RANK, "learning_rate": 0.01, "weight_decay": 0.1, "train_unembed": False}
    settings |= {} if service.kind == "hosted" else {"train_unembed": True}  # SkyRL reads no such field
    plugin = TinkerStudent(
        model=STUDENT, tokenizer_model=tokenizer, base_url=service.base_url, **{**settings, **options}
    )
    async with opened(plugin, make_context(seed=SEED)) as live:
        yield live


def weights_of(service: "TinkerService") -> dict[str, torch.Tensor]:
    """The adapter that is trained now: of the model that made the most steps."""
    model = max(service.models.values(), key=lambda each: each.steps)
    return {name: each.detach().clone() for name, each in model.trained()._trained.items()}


@pytest.mark.parametrize(
    ("epsilon", "at_once"),
    [(1e-8, 1024), (1.0, 1024), (1.0, 2)],
    ids=["as Adam sees it", "its scale too", "in several requests"],
)
async def test_loss_gradient_and_weights_are_the_local_backends(
    service: "TinkerService", tiny_model: str, epsilon: float, at_once: int
) -> None:
    """With an epsilon of 1 the optimizer's step is nearly the gradient times the learning rate: its scale shows.

    The SDK cuts a step of more than `at_once` sequences, or of too many bytes, into several requests.
    """
    local = twin(tiny_model)
    for group in local.optimizer.param_groups:
        group["eps"] = epsilon
    async with student_at(service, tiny_model, adam_epsilon=epsilon) as student:
        holder = (await student._require_live().connection.ensure()).holder
        holder._client_config = holder._client_config.model_copy(update={"fwdbwd_max_chunk_len": at_once})
        sent = service.traffic.counts["/api/v1/forward_backward"]
        for each in BATCHES:
            ours, theirs = await student.train(each), local.step(replace(each, options={"ratio_log_cap": 20.0}))
            assert ours.metrics["train/loss"] == pytest.approx(theirs.metrics["train/loss"], rel=1e-4, abs=1e-6)
            name = "rollout/logprob_mismatch_max"
            assert ours.metrics[name] == pytest.approx(theirs.metrics[name], abs=1e-4)
        mine = weights_of(service)
    assert service.traffic.counts["/api/v1/forward_backward"] - sent == (3 if at_once > 4 else 2 + 1 + 2)
    assert len(mine) == len(local.policy.trained)
    for name, wanted in local.policy.trained.items():
        (found,) = [each for other, each in mine.items() if _plain(other) == _plain(name)]
        torch.testing.assert_close(found, wanted.detach(), atol=2e-5, rtol=1e-3, msg=name)


def _plain(name: str) -> str:
    """A parameter's name without what PEFT puts around it."""
    return name.replace(".default", "").removeprefix("base_model.model.")
