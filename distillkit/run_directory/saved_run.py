"""A run that is there, to be looked at: its config as it was resolved, and the weights that it left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distillkit.config.load import load_config
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.events import Notice
from distillkit.files.near_paths import did_you_mean
from distillkit.registry import Registry
from distillkit.run_directory.checkpoint import EngineState, checkpoints, newest, of_step, step_of
from distillkit.run_directory.directory import MARKER, PATHS_START_AT, is_run, read_summary


@dataclass(frozen=True, slots=True)
class SavedWeights:
    """Weights that a run left."""

    step: int
    """Optimizer steps that they were trained for."""
    path: Path
    """A checkpoint, or what the run exported."""
    state: EngineState | None
    """Where the engine stood, of a checkpoint; None of an export."""
    held: Path | None = None
    """The same files where they stay while they are looked at, of a checkpoint that a run may remove meanwhile."""

    @property
    def files(self) -> Path:
        """Where its files are read."""
        return self.held or self.path

    @property
    def exported(self) -> bool:
        """Whether it is what the run exported, and not a checkpoint."""
        return self.state is None


NAME_ONE = "; name the directory of a run, such as runs/my-run"


def load_run(run_dir: Path, overrides: Sequence[str] = (), scripts: Sequence[str] = ()) -> tuple[RunConfig, Registry]:
    """The config of the run in a directory, which it is looked at in, without its sinks. Raises InputError."""
    require_run(run_dir)
    here = {"log_path": str(run_dir), "sinks": []}
    return load_config([run_dir / MARKER], overrides, scripts=list(scripts), defaults=here)


def require_run(run_dir: Path) -> None:
    """Raise InputError, with what to name instead, unless a directory holds a run."""
    if run_dir.is_file():
        theirs = f" (that of this file is {run_dir.parent})" if is_run(run_dir.parent) else ""
        raise InputError(f"{run_dir}: is a file, and a run is a directory{theirs}{NAME_ONE}")
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: no such directory{did_you_mean(run_dir) or NAME_ONE}")
    if not is_run(run_dir):
        raise InputError(f"{run_dir} holds no run: it has no {MARKER} that a run wrote; name one such as runs/my-run")


def saved_weights(run_dir: Path, step: int | None, tell: Callable[[Notice], None]) -> SavedWeights | None:
    """The weights of `step`, or the newest: a checkpoint, or the export where no checkpoint is as new.

    None is the student as it started, at step 0. Raises InputError where there are none, with what there is.
    """
    if step == 0:
        return None
    exported = exported_weights(run_dir)
    if step is not None:
        if exported is not None and exported.step == step and step not in map(step_of, checkpoints(run_dir)):
            return exported
        path, state = of_step(run_dir, step)
        return SavedWeights(step, path, state)
    kept = checkpoints(run_dir)
    if exported is not None and (not kept or step_of(kept[-1]) < exported.step):
        return exported
    if not kept:
        raise InputError(
            f"{run_dir} holds no weights: no checkpoint and no export, so nothing was trained (--step 0 is the student "
            "as it started)"
        )
    path, state = newest(run_dir, lambda message: tell(Notice(message, "warning")))
    return SavedWeights(state.step, path, state)


def starting_from(config: RunConfig, weights: SavedWeights | None) -> RunConfig:
    """The config whose student starts from an export; as it is for a checkpoint, which is loaded into the student.

    Raises InputError where the student does not start from what it exported.
    """
    if weights is None or not weights.exported:
        return config
    return config.model_copy(update={"student": config.student.from_export(weights.path)})


def exported_weights(run_dir: Path) -> SavedWeights | None:
    """What a run exported that is complete, if it is still there."""
    summary = read_summary(run_dir)
    if summary is None or summary.get("status") != "completed" or not summary.get("adapter_path"):
        return None
    path = run_dir / Path(str(summary["adapter_path"])).name
    return SavedWeights(int(str(summary["steps"])), path, None) if path.is_dir() else None


@contextmanager
def noting_where_it_began(run_dir: Path) -> Iterator[None]:
    """Note on an InputError that the run's relative paths start elsewhere, where they do."""
    try:
        yield
    except InputError as error:
        began = paths_start_at(run_dir) if is_run(run_dir) else None
        if began is not None and began != Path.cwd():
            error.add_note(f"the run began in {began}, where its relative paths start: go there for this command")
        raise


def paths_start_at(run_dir: Path) -> Path | None:
    """Where a run's relative paths start; None where its config does not say."""
    with (run_dir / MARKER).open(encoding="utf-8") as file:
        lines = [file.readline(), file.readline()]
    found = [line.removeprefix(PATHS_START_AT).strip() for line in lines if line.startswith(PATHS_START_AT)]
    return Path(found[0]) if found else None
