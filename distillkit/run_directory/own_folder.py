"""A temporary folder in a run's directory, for each process that looks at the run: they do not exclude each other.

The first is `.probe`, the next `.probe-2`; one whose process was killed is taken, and emptied, by who looks next.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from distillkit.errors import InputError
from distillkit.roles.plugin import PENDING_CLEANUP, Plugin
from distillkit.run_directory.directory import PROBE_FOLDER, claim_directory, probe_records
from distillkit.run_directory.run_lock import HeldError
from distillkit.run_directory.run_start import RunStart


@contextmanager
def own_folder(
    run_dir: Path, plugins: Collection[type[Plugin]] = (), known: Collection[type[Plugin]] = ()
) -> Iterator[Path]:
    """A folder that no other process has, gone behind the block; and the run's directory too, where it was not there.

    `plugins` are those that write there, and clean up what a killed one left elsewhere; `known` all there are. Without
    any, a folder with records of such is left to who can.
    """
    away = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    try:
        with ExitStack() as stack:
            folder = _claimed(stack, run_dir, plugins, known)
            away = [folder, *away]
            try:
                yield folder
            finally:
                _empty(folder)
    finally:
        for path in away:
            with suppress(OSError):  # a record of what is still to be cleaned up is in it, or another's file
                path.rmdir()


def _claimed(
    stack: ExitStack, run_dir: Path, plugins: Collection[type[Plugin]], known: Collection[type[Plugin]]
) -> Path:
    """The first folder that nobody holds, those first that are to be cleaned up."""
    unclean = {record.parents[1] for record in probe_records(run_dir)}
    for folder in sorted(unclean) if plugins else ():
        with suppress(HeldError):
            stack.enter_context(claim_directory(folder, RunStart(overwrite=True), plugins=plugins, known=known))
            return folder
    for number in count(1):
        folder = run_dir / (PROBE_FOLDER if number == 1 else f"{PROBE_FOLDER}-{number}")
        if folder in unclean:
            continue
        try:
            stack.enter_context(claim_directory(folder, RunStart(overwrite=True), plugins=plugins, known=known))
        except HeldError:
            continue
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # its owner ended, and took it away meanwhile
                continue
            raise
        return folder
    raise AssertionError("numbers do not end")


def _empty(folder: Path) -> None:
    """Remove all but the records of what a plugin could not clean up: the next probe does it."""
    with suppress(OSError):
        (folder / PENDING_CLEANUP).rmdir()
    for path in folder.iterdir():
        if path.name == PENDING_CLEANUP:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
