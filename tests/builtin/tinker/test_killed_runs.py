"""Runs of student `tinker` in a process of their own, killed at chosen requests."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import distillkit
from builtin.tinker.compared_runs import config_of, require_same
from builtin.tinker.conftest import Start

pytest.importorskip("tinker")
if TYPE_CHECKING:
    from distillkit_loopback.transport.messages import Request

KILLS = (("optim_step", 2), ("save_weights", 1), ("save_weights_for_sampler", 2))
"""The request at which a process is killed: that to a path, of this number in it. The first one is after a save."""


class Victim:
    """A run's process, which a request to the service may end: the queue of faults asks whether it is for it."""

    def __init__(self, folder: Path, config: distillkit.RunConfig) -> None:
        self._path = folder / "config.yaml"
        self._path.write_text(yaml.safe_dump(config.dump()), encoding="utf-8")
        self._process: subprocess.Popen[str] | None = None

    def run(self, *options: str) -> tuple[int, str]:
        """The exit code of `distillkit run`, and what it printed."""
        command = [sys.executable, "-m", "distillkit", "run", str(self._path), *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            printed, _ = self._process.communicate(timeout=240)
        finally:
            self._process.kill()
        return self._process.returncode, printed

    def signalled(self, path: str, count: int, number: int) -> "Callable[[Request], bool]":
        """A fault's `where`: never; at the request to `path` of that number the process gets the signal."""
        seen = 0

        def where(request: "Request") -> bool:
            nonlocal seen
            seen += request.path.endswith(f"/{path}")
            if seen == count and request.path.endswith(f"/{path}") and self._process is not None:
                self._process.send_signal(number)
            return False

        return where


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_equals_one_that_never_was(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    from distillkit_loopback.transport.faults import Delay

    models = (tiny_model, other_tiny_model)
    (tmp_path / "calm").mkdir()
    calm = distillkit.run(config_of(start("hosted"), tmp_path / "calm", models, "calm"))
    service = start("hosted")
    config = config_of(service, tmp_path, models, "killed")
    victim = Victim(tmp_path, config)
    for number, (path, count) in enumerate(KILLS):
        service.faults.add(Delay(0.0), where=victim.signalled(path, count, signal.SIGKILL))
        code, printed = victim.run(*(["--resume"] if number else []))
        assert code == -signal.SIGKILL, printed
        service.faults.clear()
    code, printed = victim.run("--resume")
    assert code == 0, printed
    require_same(tmp_path / "runs/killed", calm)
    names = [path.rpartition("/")[2] for path in service.checkpoints]
    assert len(set(names)) == len(names)
