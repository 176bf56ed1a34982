"""Threads, sockets, open files and processes before and after runs of every backend: nothing is left over."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import left_over

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads Linux's /proc")
QUIET = {
    "FIREWORKS_API_KEY": "test-key",
    "TINKER_API_KEY": "tml-test-key",
    "TINKER_TELEMETRY": "0",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
}
WAYS = [way.__name__ for way in left_over.WAYS]


def after_runs(backend: str, folder: Path, model: str, teacher: str) -> dict[str, Any]:
    """What is left over in a process, by how a run ended in it."""
    command = [sys.executable, left_over.__file__, backend, str(folder), model, teacher]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | QUIET | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("backend", ["fakes", "wandb", "local", "http", "fireworks", "tinker"])
def test_a_run_leaves_nothing_however_it_ends(
    backend: str, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    for library in {"wandb": ["wandb"], "fireworks": ["fireworks.training.sdk"], "tinker": ["tinker"]}.get(backend, []):
        pytest.importorskip(library)
    assert after_runs(backend, tmp_path, tiny_model, other_tiny_model) == {way: {} for way in WAYS}


def test_what_is_left_over_would_be_found(tmp_path: Path, tiny_model: str) -> None:
    forgotten = {"thread forgotten": 1, "socket": 1, f"file {tmp_path}/runs/run/run.log": 1}
    assert after_runs("forgetful", tmp_path, tiny_model, tiny_model) == dict.fromkeys(WAYS, forgotten)
