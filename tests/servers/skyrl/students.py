"""A student on a real Tinker server, without a run around it: opened, sampled from, and given batches."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file

from distillkit import Student
from distillkit.arrays import frozen_array, token_ids
from distillkit.context import RunContext
from distillkit.records import Rollout
from distillkit.training_data import Batch, Datum
from distillkit.types import Message, SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.losses.importance_sampling import importance_sampling
from distillkit_builtin.tinker.student import TinkerStudent
from servers.skyrl.skyrl_process import SkyrlProcess

AnyStudent = TypeVar("AnyStudent", bound=Student)
QUESTIONS = ["Why is the sky blue?", "no", "Say it in a few more words than that, if you please: why?"]


@asynccontextmanager
async def opened(student: AnyStudent, run: RunContext) -> AsyncIterator[AnyStudent]:
    """A student between open and close."""
    student.check(run)
    await student.open(replace(run, tokenizer=student.tokenizer(run)))
    try:
        yield student
    finally:
        await student.close()
        await run.shared.release(run.user)


def tinker_student(server: SkyrlProcess, base: Path, /, **over: Any) -> TinkerStudent:
    options = {"base_url": server.url, "model": str(base), "lora_rank": 4, "learning_rate": 1e-2, **over}
    return TinkerStudent(**options)


async def sampled(student: TinkerStudent, model: Path, max_tokens: int = 12) -> list[Rollout]:
    """Completions of three lengths of prompts, by the weights that were published last."""
    tokenizer = HFTokenizer.load(str(model))
    prompts = [token_ids(tokenizer.render([Message("user", text)], {})) for text in QUESTIONS]
    params = SamplingParams(max_tokens)
    requests = [SampleRequest(SampleKey("1-x", 0, i), prompt, 70 + i, params) for i, prompt in enumerate(prompts)]
    found = [outcome async for outcome in student.sample(requests)]
    assert all(isinstance(outcome, Rollout) for outcome in found), found
    return sorted((one for one in found if isinstance(one, Rollout)), key=lambda rollout: rollout.key)


def batch_of(rollouts: list[Rollout], **options: float) -> Batch:
    """Advantages of both signs and of sizes that differ, and weights of a mean over tokens."""
    chance = np.random.default_rng(0)
    weight = 1 / sum(len(rollout.token_ids) for rollout in rollouts)
    datums = []
    for rollout in rollouts:
        values = {
            "sampling_logprobs": rollout.logprobs,
            "advantages": chance.normal(size=len(rollout.token_ids)),
            "weights": np.full(len(rollout.token_ids), weight),
        }
        datums.append(Datum.of(rollout, {name: frozen_array(value, "float32") for name, value in values.items()}))
    return Batch("importance_sampling", options, tuple(datums), importance_sampling)


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(folder / "adapter_model.safetensors")
    return found
