import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_runs_that_are_killed_at_ten_random_moments_equal_one_that_never_was() -> None:
    """`make torture` kills fifty times."""
    script = Path(__file__).parent / "scripts" / "torture.py"
    done = subprocess.run([sys.executable, script, "10", "--seed", "1"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("10 kills, all runs equal to the last bit")
