"""What the student writes may be read by a server of another user, as the umask says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_adapters import write_adapter
from helpers.umask import require_umask

from distillkit import RunConfig, run
from distillkit.testing import make_context
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.options import LocalStudentOptions


@pytest.mark.parametrize("rank", [4, 0])
async def test_weights_for_a_server_are_as_the_umask_says(
    tiny_model: str, tmp_path: Path, umask: int, rank: int
) -> None:
    options = LocalStudentOptions(model=tiny_model, dtype="float32", device="cpu", lora_rank=rank)
    live = await LiveLocalStudent.open(replace(make_context(), run_dir=tmp_path), options, samples=False)
    await live.publish(1, to_disk=True)
    assert require_umask(tmp_path / "weights", umask) >= 2


@pytest.mark.parametrize("student", [{}, {"lora_rank": 0}], ids=["lora", "whole"])
def test_a_finished_runs_directory_is_as_the_umask_says(
    local_config: Callable[..., RunConfig], umask: int, student: dict[str, Any]
) -> None:
    folder = run(local_config(student=student, train={"max_steps": 1, "prompt_groups_per_step": 1})).run_dir
    assert (folder / "checkpoints/step-1/student/trainer.safetensors").is_file()
    assert require_umask(folder, umask) > 10


def test_so_is_the_base_that_a_run_wrote_beside_its_adapter(
    local_config: Callable[..., RunConfig], tiny_model: str, tmp_path: Path, umask: int
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_model)
    config = local_config(student={"model": str(adapter)}, train={"max_steps": 1, "prompt_groups_per_step": 1})
    folder = run(config).run_dir
    assert (folder / "base/model.safetensors").is_file()
    require_umask(folder, umask)
