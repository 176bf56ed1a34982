"""What the operating system refuses, in words that say how to fix it."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from distillkit.errors import RunFailedError

if sys.platform != "win32":
    import resource  # now: when it is needed, no file can be opened any more

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}


def advice(error: OSError) -> str:
    """How to fix a write that failed, as a clause without a full stop."""
    if error.errno in FULL:
        return "free some space there"
    if error.errno in FORBIDDEN:
        return "make it writable"
    if error.errno in TOO_MANY_FILES:
        return raise_the_limit()
    return "fix that"


def raise_the_limit() -> str:
    """What to do when no more files can be opened."""
    if sys.platform == "win32":
        return "let this process open more files"
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = " (as an administrator: it is the hard limit too)" if limit == most else ""
    return f"this process may have {limit} files open at once; raise that limit by `ulimit -n 4096`{more}"


@contextmanager
def explain_os_errors() -> Iterator[None]:
    """Turn an exhausted limit on open files, wherever it is met, into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in TOO_MANY_FILES:
            raise
        what = f"{error.filename} cannot be opened: " if error.filename else ""
        raise RunFailedError(f"{what}{error.strerror}; {raise_the_limit()}, and go on by --resume") from error
