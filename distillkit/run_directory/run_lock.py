"""One process at a time in a run's directory, and what others read of it. The lock is the operating system's."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from distillkit.errors import InputError
from distillkit.files.os_errors import TOO_MANY_FILES, advice

LOCK = ".lock"
OWNER = ".running"
"""Who holds the lock: process, host and since when. A process that died leaves it, and holds nothing."""

LOOK_SECONDS = 0.3
"""How long a run that begins waits for the lock: who only looks whether one runs there has it for a moment."""


class HeldError(InputError):
    """Another process holds the directory."""


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Make the directory and hold it against other processes. Raises InputError if one holds it, or it cannot be."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run_dir / LOCK)
        lock.acquire(timeout=LOOK_SECONDS, poll_interval=0.01)
    except Timeout as error:
        raise HeldError(_going_on(run_dir)) from error
    except (OSError, ValueError) as error:  # ValueError: characters that no path can hold
        if isinstance(error, OSError) and error.errno in TOO_MANY_FILES:
            raise
        reason = f"{error.strerror}; {advice(error)}, or" if isinstance(error, OSError) else f"{error};"
        raise InputError(f"{str(run_dir)!r} cannot be written: {reason} choose another log_path") from error
    owner = run_dir / OWNER
    try:
        _sign(owner)
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def require_nobody_runs(run_dir: Path, *, patient: bool = True) -> None:
    """Raise InputError, naming process and host, if another process holds the directory now; changes nothing there.

    `patient`: who has it for a moment only, to look, does not count.
    """
    try:
        if not (run_dir / LOCK).is_file():
            return
        lock = FileLock(run_dir / LOCK)
        lock.acquire(timeout=LOOK_SECONDS if patient else 0, poll_interval=0.01)
    except Timeout as error:
        raise InputError(_going_on(run_dir)) from error
    except (OSError, ValueError):  # whoever wants to write there says why that cannot be
        return
    lock.release()


def is_held_elsewhere(run_dir: Path) -> bool:
    """Whether another process runs in the directory now; changes nothing there."""
    try:
        require_nobody_runs(run_dir, patient=False)
    except InputError:
        return _owner(run_dir) != (os.getpid(), platform.node())
    return False


def _sign(owner: Path) -> None:
    """Aside and then renamed: who reads it reads all of it. A disk that is full is told of by what is written next."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    try:
        aside = owner.with_name(f"{OWNER}.{os.getpid()}")
        aside.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}), encoding="utf-8")
        aside.replace(owner)
    except OSError:
        owner.unlink(missing_ok=True)


def _owner(run_dir: Path) -> tuple[int, str] | None:
    """Process and host of who holds the directory; None where that is not said."""
    try:
        found = json.loads((run_dir / OWNER).read_text(encoding="utf-8"))
        return int(found["pid"]), str(found["host"])
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or just ended
        return None


def _going_on(run_dir: Path) -> str:
    """Who runs there, and what to do."""
    where, elsewhere = f"{run_dir}: another process is running there", "write elsewhere by name=another-name"
    try:
        found = json.loads((run_dir / OWNER).read_text(encoding="utf-8"))
        pid, host, since = int(found["pid"]), str(found["host"]), str(found["since"])
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or just ended
        return f"{where}; wait for it, or {elsewhere}"
    stop = f"kill -INT {pid}" if host == platform.node() else f"kill -INT {pid} on {host}"
    return (
        f"{where}: process {pid} on {host}, since {since}. Wait for its end ({run_dir / 'run.log'} says how far it "
        f"is), or stop it ({stop}: it finishes its step and saves) and go on by --resume; or {elsewhere}"
    )
