"""What a process holds: its threads, open files, sockets and children."""

import re
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path


def held() -> Counter[str]:
    """What this process holds now: its threads, open files, sockets and children."""
    own = Path("/proc/self")
    things = Counter(f"thread {re.sub(r'[-_]?[0-9]+', '', thread.name)}" for thread in threading.enumerate())
    things["threads outside of Python"] = sum(1 for _ in (own / "task").iterdir()) - threading.active_count()
    for descriptor in (own / "fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # the folder's own, that is read here
            continue
        named = target.partition(":")[0] if ":[" in target else f"file {target.removesuffix(' (deleted)')}"
        things[named] += 1
    for task in (own / "task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            things["child process"] += len((task / "children").read_text().split())
    return things


def more_than(before: Counter[str], seconds: float) -> dict[str, int]:
    """What is held now and was not, once it has settled or so many seconds are over."""
    until = time.monotonic() + seconds
    while (more := held() - before) and time.monotonic() < until:
        time.sleep(0.05)
    return dict(more)
