"""The runs in a folder, each under a name that says nothing of where it is and cannot lead anywhere else."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from distillkit.run_directory.directory import is_run

DEPTH = 3
"""Folders below the one that is shown in which runs are looked for."""
OWN_FOLDERS = frozenset({"checkpoints", "adapter", "model", "base", "evaluations"})
"""Of a run: no other run is in them."""
FILES = ("config.yaml", "metrics.jsonl", "samples.jsonl", "ledger.jsonl", "run.log", "summary.json", "probe.json")
"""What a report is made of."""


def found_runs(folder: Path) -> dict[str, Path]:
    """The runs in `folder`, or itself where it is one, by key; in the order of their paths."""
    return {key_of(run, folder): run for run in _runs(folder, DEPTH)}


def key_of(run: Path, folder: Path) -> str:
    """What addresses call a run."""
    return hashlib.sha256(str(run.relative_to(folder)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def signature(run: Path) -> tuple[tuple[int, int], ...]:
    """Size and time of change of each file of a report: equal as long as none has changed."""
    return tuple(_state(run / name) for name in FILES)


def version_of(run: Path, *more: object) -> str:
    """16 hex digits that change when a report of the run would."""
    return hashlib.sha256(repr((signature(run), *more)).encode()).hexdigest()[:16]


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return (-1, 0)
    return (found.st_size, found.st_mtime_ns)


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    """No link is followed: it may lead anywhere."""
    try:
        if is_run(folder):
            yield folder
            return
        below = _folders(folder) if depth else ()
    except OSError:
        return
    for each in below:
        yield from _runs(each, depth - 1)


def _folders(folder: Path) -> Sequence[Path]:
    return sorted(
        each
        for each in folder.iterdir()
        if each.is_dir() and not each.is_symlink() and not each.name.startswith(".") and each.name not in OWN_FOLDERS
    )
