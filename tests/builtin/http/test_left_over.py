"""Threads, sockets and open files before and after runs of scorer `http` and sampler `vllm`: nothing is left over."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builtin.http import repeated_runs


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads Linux's /proc")
def test_runs_and_their_servers_leave_nothing(tmp_path: Path, tiny_model: str, other_tiny_model: str) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, repeated_runs.__file__, str(tmp_path), tiny_model, other_tiny_model]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {name: {} for name in repeated_runs.RUNS}
