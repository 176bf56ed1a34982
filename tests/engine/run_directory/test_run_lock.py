import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

import distillkit
from distillkit import InputError, RunConfig
from distillkit.run_directory.run_lock import LOCK, OWNER, held, require_nobody_runs
from distillkit.testing import FakeScorer, FakeStudent

HOLD = """
import sys
from pathlib import Path
from distillkit.run_directory.run_lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `runs/fake`, until it reads a line."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "runs" / "fake")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}, {}])
def test_a_run_that_is_going_on_is_named_and_not_said_to_be_overwritten(
    fake_config: Callable[..., RunConfig], other: subprocess.Popen[str], tmp_path: Path, how: dict[str, bool]
) -> None:
    config = fake_config()
    assert Path(config.log_path.replace("{name}", config.name)) == tmp_path / "runs" / "fake"
    with pytest.raises(InputError) as caught:
        distillkit.run(config, plugins=[FakeStudent, FakeScorer], **how)  # type: ignore[arg-type]
    said = str(caught.value)
    assert f"another process is running there: process {other.pid} on {platform.node()}, since 20" in said
    assert f"kill -INT {other.pid}: it finishes its step and saves) and go on by --resume" in said
    assert "--overwrite" not in said


def test_who_holds_it_is_gone_with_the_process_however_that_ends(other: subprocess.Popen[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "fake"
    other.kill()
    other.wait()
    assert (run_dir / OWNER).exists()
    require_nobody_runs(run_dir)
    with held(run_dir):
        assert str(os.getpid()) in (run_dir / OWNER).read_text()
    assert {path.name for path in run_dir.iterdir()} <= {LOCK}


def test_of_another_host_it_says_where_to_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(tmp_path):
        monkeypatch.setattr(platform, "node", lambda: "here")
        (tmp_path / OWNER).write_text('{"pid": 7, "host": "there", "since": "2026"}')
        with pytest.raises(InputError, match=r"process 7 on there, since 2026.*kill -INT 7 on there"):
            require_nobody_runs(tmp_path)
        (tmp_path / OWNER).write_text("{")
        with pytest.raises(InputError, match="another process is running there; wait for it"):
            require_nobody_runs(tmp_path)


def test_where_nobody_runs_nothing_is_made(tmp_path: Path) -> None:
    require_nobody_runs(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_run_begins_though_somebody_looks_whether_one_is_there(tmp_path: Path) -> None:
    """As `distillkit view` does every few seconds, which has the lock for that moment."""
    looking = FileLock(tmp_path / LOCK, thread_local=False)
    for begin in (require_nobody_runs, _hold_once):
        looking.acquire()
        timer = threading.Timer(0.05, looking.release, kwargs={"force": True})
        timer.start()
        begin(tmp_path)
        timer.join()


def _hold_once(run_dir: Path) -> None:
    with held(run_dir):
        pass
