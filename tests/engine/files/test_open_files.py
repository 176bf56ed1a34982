"""A low limit on open files: the run works, or it says what the limit is and how to raise it."""

import errno
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from distillkit import RunConfig, run
from distillkit.errors import RunFailedError
from distillkit.testing import FakeStudent
from distillkit.training_data import Batch, StepResult

ENOUGH = 16


def limited(files: int) -> Callable[[], None]:
    """Before a process starts: it may have no more files open than this."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, 100))


@pytest.mark.parametrize("files", [8, 10, ENOUGH])
def test_the_limit_is_named_and_how_to_raise_it(command: list[str], files: int) -> None:
    quick = [*command, "train.max_steps=2"]
    done = subprocess.run(quick, capture_output=True, text=True, preexec_fn=limited(files), timeout=120)
    if files == ENOUGH:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "Too many open files" in done.stderr
    assert f"may have {files} files open at once; raise that limit by `ulimit -n 4096`" in done.stderr
    assert subprocess.run(quick, capture_output=True, timeout=120).returncode == 0  # nothing is in its way


def test_whoever_meets_the_limit_first_it_is_explained(fake_config: Callable[..., RunConfig]) -> None:
    class Leaking(FakeStudent):
        """Cannot open one more file."""

        async def train(self, batch: Batch) -> StepResult:
            raise OSError(errno.EMFILE, "Too many open files", "shard.bin")

    config = fake_config(student=Leaking(), sinks=[])
    with pytest.raises(RunFailedError, match=r"^shard\.bin cannot be opened: .*ulimit -n") as caught:
        run(config)
    assert isinstance(caught.value.__cause__, OSError)
    summary = Path(config.log_path.replace("{name}", config.name)) / "summary.json"
    assert "raised by student 'fake'" in summary.read_text()
