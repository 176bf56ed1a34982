"""What a run leaves is readable for whom the umask lets, and for nobody else."""

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers.umask import require_umask
from safetensors.numpy import save_file

from distillkit import RunConfig, run
from distillkit.files.permissions import apply_umask
from distillkit.testing import FakeScorer, FakeStudent


def test_a_finished_runs_directory_is_as_the_umask_says(fake_config: Callable[..., RunConfig], umask: int) -> None:
    config = fake_config(train={"save_every": 2, "max_steps": 3})
    folder = run(config, plugins=[FakeStudent, FakeScorer]).run_dir
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} >= {".safetensors", ".json", ".jsonl", ".log"}
    assert require_umask(folder, umask) > 10


def test_only_what_lacks_a_permission_is_given_it(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    save_file({"a": np.zeros(1)}, folder / "a.safetensors")
    (folder / "script").write_text("")
    (folder / "script").chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    save_file({"a": np.zeros(1)}, elsewhere)
    (folder / "link").symlink_to(elsewhere)
    apply_umask(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((folder / "a.safetensors").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((folder / "script").stat().st_mode) == 0o755
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o600  # somebody else's
    assert sorted(path.name for path in folder.iterdir()) == ["a.safetensors", "link", "script"]
    apply_umask(elsewhere)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o666 & ~umask
