"""The first step on a real Tinker server: the same loss, norm and direction of the gradient as the local backend's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from distillkit import Student
from distillkit.arrays import frozen_array, token_ids
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Rollout
from distillkit.testing import make_context
from distillkit.training_data import Batch, Datum
from distillkit.types import Message, SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.importance_sampling import importance_sampling
from distillkit_builtin.tinker.student import TinkerStudent
from servers.scoring import FLOAT32
from servers.skyrl.skyrl_process import SkyrlProcess

pytestmark = pytest.mark.servers
LINEAR = 1e6
"""As learning rate and as Adam's epsilon: the first step is then the gradient itself, to a part in 1e6 of it."""
QUESTIONS = ["Why is the sky blue?", "no", "Say it in a few more words than that, if you please: why?"]


@asynccontextmanager
async def opened(student: Student, run: RunContext) -> AsyncIterator[Student]:
    """A student between open and close."""
    student.check(run)
    await student.open(replace(run, tokenizer=student.tokenizer(run)))
    try:
        yield student
    finally:
        await student.close()
        await run.shared.release(run.user)


def tinker_student(server: SkyrlProcess, model: Path, **over: Any) -> TinkerStudent:
    options = {"base_url": server.url, "model": str(model), "lora_rank": 4, "learning_rate": 1e-2, **over}
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


async def test_the_first_step_is_that_of_the_local_backend(server: SkyrlProcess, tiny: Path, tmp_path: Path) -> None:
    run = replace(make_context(), run_dir=tmp_path)
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    async with opened(tinker_student(server, tiny, learning_rate=LINEAR, adam_epsilon=LINEAR), run) as student:
        assert isinstance(student, TinkerStudent)
        await student.sync(await student.publish(0))
        rollouts = await sampled(student, tiny)
        before = await student.export(tmp_path / "before")
        theirs = (await student.train(batch_of(rollouts))).metrics
        after = await student.export(tmp_path / "after")
    options = {"model": str(tiny), "adapter": str(before), "dtype": "float32", "device": "cpu", "grad_clip_norm": 0.0}
    async with opened(LocalStudent(**options), replace(make_context(), run_dir=tmp_path)) as local:
        ours = (await local.train(batch_of(rollouts, ratio_log_cap=20.0))).metrics
        stepped = await local.export(tmp_path)
    for name in ("train/loss", "train/grad_norm"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-3), name
    assert theirs["rollout/logprob_mismatch"] < FLOAT32
    start = weights_of(before)
    gradient = {name: start[name] - value for name, value in weights_of(after).items()}
    norm = np.sqrt(sum(float((value.astype(np.float64) ** 2).sum()) for value in gradient.values()))
    assert norm == pytest.approx(ours["train/grad_norm"], rel=1e-3)  # whatever the server divides by
    local_step = {name: start[name] - value for name, value in weights_of(stepped).items()}
    assert local_step.keys() == gradient.keys()
    large = {name: np.abs(value) > 1e-3 * norm for name, value in gradient.items()}
    assert sum(int(where.sum()) for where in large.values()) > 100
    for name, where in large.items():  # Adam's first step has the gradient's sign
        np.testing.assert_array_equal(np.sign(local_step[name][where]), np.sign(gradient[name][where]), err_msg=name)


async def test_it_says_what_the_server_ignores_and_divides_by(server: SkyrlProcess, tiny: Path) -> None:
    told: list[str] = []
    run = make_context(notify=told.append)
    with pytest.raises(InputError, match="grad_clip_norm"):
        tinker_student(server, tiny, grad_clip_norm=1.0).check(run)
    async with opened(tinker_student(server, tiny, checkpoint_ttl=3600), make_context(notify=told.append)):
        pass
    assert any("its number of tokens and each step by its number of sequences" in line for line in told), told
    assert any("checkpoint_ttl" in line for line in told), told
    with pytest.raises(InputError, match="is not at"):
        tinker_student(server, tiny, model="other/model", tokenizer_model=str(tiny)).check(run)
