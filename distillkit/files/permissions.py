"""Files that whoever the umask lets may read: some libraries write theirs for their owner alone.

safetensors 0.8 writes into a temporary file (0600) and renames it, so that a server of another user could not load the
weights that a run left, nor a colleague the checkpoint.
"""

import os
import secrets
from pathlib import Path


def apply_umask(path: Path) -> None:
    """Give a file, or all files and folders below a folder, what a new one gets there; no permission is taken away.

    The umask itself can only be read by changing it, for the whole process; so a new file says what it is. Raises
    OSError.
    """
    folder = path if path.is_dir() else path.parent
    mode = _mode_of_new_file(folder)
    for found in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if not found.is_symlink():
            _allow(found, _with_search(mode) if found.is_dir() else mode)


def _allow(path: Path, mode: int) -> None:
    has = path.stat().st_mode & 0o777
    if has | mode != has:
        path.chmod(has | mode)


def _with_search(mode: int) -> int:
    """A folder's mode: who may read it may also reach what is in it."""
    return mode | (mode & 0o444) >> 2


def _mode_of_new_file(folder: Path) -> int:
    probe = folder / f".mode-{secrets.token_hex(4)}"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)
        probe.unlink()
