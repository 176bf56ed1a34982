"""The mode that files and folders have where nothing but the umask decides."""

import stat
from pathlib import Path


def require_umask(folder: Path, umask: int) -> int:
    """Check the mode of all below a folder; return how many files there are."""
    files = 0
    for path in folder.rglob("*"):
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(expected), path
        files += path.is_file()
    return files
