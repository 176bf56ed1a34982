"""Weights of a run that may go on, and so remove its older checkpoints: their files stay while they are looked at."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from distillkit.errors import InputError
from distillkit.events import Notice
from distillkit.run_directory.own_folder import own_folder
from distillkit.run_directory.saved_run import SavedWeights, saved_weights

TRIES = 5
"""How often the newest checkpoint is taken, where the run removed the one before while it was read."""


@contextmanager
def held_weights(run_dir: Path, step: int | None, tell: Callable[[Notice], None]) -> Iterator[SavedWeights | None]:
    """As `saved_weights`, held until the block ends: as links to the same files, which take no room on the disk."""
    weights = saved_weights(run_dir, step, tell)
    if weights is None or weights.exported:
        yield weights
        return
    with own_folder(run_dir) as folder:
        for _ in range(TRIES):
            held = folder / weights.path.name
            if _linked(weights.path, held):
                yield replace(weights, held=held)
                return
            shutil.rmtree(held, ignore_errors=True)
            again = saved_weights(run_dir, step, tell)  # says so of a step that is not kept any more
            if again is None or again.exported:  # the run has just ended, and exported what it trained
                yield again
                return
            weights = again
        raise InputError(
            f"{run_dir}: the run removes its checkpoints faster than they can be read; wait for its end, or let it "
            "keep more (train.keep_last)"
        )


def _linked(checkpoint: Path, to: Path) -> bool:
    """Whether all of a checkpoint's files have a second name now: false where some were removed meanwhile."""
    try:
        shutil.copytree(checkpoint, to, copy_function=_link)
    except (FileNotFoundError, shutil.Error):
        if checkpoint.is_dir():
            raise
        return False
    return checkpoint.is_dir()


def _link(file: str, to: str) -> None:
    """A file system that has no links gets a copy."""
    try:
        os.link(file, to)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(file, to)
