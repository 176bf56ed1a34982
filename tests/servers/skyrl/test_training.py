"""The first step on a real Tinker server: the same loss, norm and direction of the gradient as the local backend's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distillkit.errors import InputError
from distillkit.testing import make_context
from distillkit_builtin.local.student import LocalStudent
from servers.scoring import FLOAT32
from servers.skyrl.skyrl_process import SkyrlProcess
from servers.skyrl.students import batch_of, opened, sampled, tinker_student, weights_of

pytestmark = pytest.mark.servers
LINEAR = 1e6
"""As learning rate and as Adam's epsilon: the first step is then the gradient itself, to a part in 1e6 of it."""


async def test_the_first_step_is_that_of_the_local_backend(server: SkyrlProcess, tiny: Path, tmp_path: Path) -> None:
    run = replace(make_context(), run_dir=tmp_path)
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    async with opened(tinker_student(server, tiny, learning_rate=LINEAR, adam_epsilon=LINEAR), run) as student:
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
        assert theirs[name] == pytest.approx(ours[name], rel=1e-3, abs=1e-4), name  # a loss of both signs may be small
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
    for ignored in ({"grad_clip_norm": 1.0}, {"checkpoint_ttl": 3600}):
        (name,) = ignored
        with pytest.raises(InputError, match=f"student.{name}"):
            tinker_student(server, tiny, **ignored).check(make_context())
    with pytest.raises(InputError, match="is not at"):
        tinker_student(server, tiny, model="other/model", tokenizer_model=str(tiny)).check(make_context())
    told: list[str] = []
    async with opened(tinker_student(server, tiny), make_context(notify=told.append)):
        pass
    assert any("its number of tokens and each step by its number of sequences" in line for line in told), told
