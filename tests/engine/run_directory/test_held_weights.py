"""Weights of a run that goes on, and removes its checkpoints while they are looked at."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import distillkit
from distillkit import InputError, RunConfig
from distillkit.run_directory import held_weights as module
from distillkit.run_directory.checkpoint import damage
from distillkit.run_directory.held_weights import TRIES, held_weights
from distillkit.run_directory.own_folder import own_folder
from distillkit.run_directory.saved_run import saved_weights

Make = Callable[..., RunConfig]


@pytest.fixture
def run_dir(fake_config: Make) -> Path:
    """Checkpoints of steps 1 to 3, of a run that has not ended."""
    result = distillkit.run(fake_config(train={"max_steps": 3, "save_every": 1, "keep_last": 3}))
    (result.run_dir / "summary.json").unlink()
    return result.run_dir


def test_what_is_held_stays_whole_when_the_run_removes_it_and_is_gone_behind(run_dir: Path) -> None:
    before = {path.name for path in run_dir.iterdir()}
    with held_weights(run_dir, None, print) as weights:
        assert weights is not None
        assert (weights.step, weights.path) == (3, run_dir / "checkpoints/step-3")
        shutil.rmtree(weights.path)
        assert damage(weights.files) is None
    assert {path.name for path in run_dir.iterdir()} == before


def test_where_the_file_system_has_no_links_it_is_a_copy(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: str, to: str) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    with held_weights(run_dir, 2, print) as weights:
        assert weights is not None
        shutil.rmtree(weights.path)
        assert damage(weights.files) is None


def test_one_that_goes_before_it_is_held_is_replaced_by_the_newest(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picked = saved_weights(run_dir, None, print)
    shutil.rmtree(run_dir / "checkpoints/step-3")
    given = [picked]
    pick = saved_weights
    monkeypatch.setattr(module, "saved_weights", lambda *args: given.pop() if given else pick(*args))
    with held_weights(run_dir, None, print) as weights:
        assert weights is not None
        assert weights.step == 2


def test_a_step_that_goes_is_not_kept_and_a_run_that_is_faster_is_told_of(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picked, pick = saved_weights(run_dir, 3, print), saved_weights
    shutil.rmtree(run_dir / "checkpoints/step-3")
    given = [picked]
    monkeypatch.setattr(module, "saved_weights", lambda *args: given.pop() if given else pick(*args))
    with pytest.raises(InputError, match="keeps no checkpoint of step 3"), held_weights(run_dir, 3, print):
        pass
    given += [picked] * (TRIES + 1)
    with pytest.raises(InputError, match=r"let it keep more \(train.keep_last\)"), held_weights(run_dir, None, print):
        pass


def test_several_that_look_have_a_folder_each(run_dir: Path) -> None:
    before = {path.name for path in run_dir.iterdir()}
    with own_folder(run_dir) as first, own_folder(run_dir) as second:
        assert [first.name, second.name] == [".probe", ".probe-2"]
    with own_folder(run_dir) as again:
        assert again == first
    assert {path.name for path in run_dir.iterdir()} == before
