"""From which checkpoint a resumed run goes on, and whether it may."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit.run_directory.checkpoint import (
    EngineState,
    checkpoints,
    day_of,
    newest,
    of_step,
    step_of,
)
from distillkit.run_directory.directory import is_complete
from distillkit.run_directory.identity import changes, other_code, other_held_out, require_same
from distillkit.run_directory.rollout_codec import dropped
from distillkit.run_directory.run_start import RunStart


def began_on(run_dir: Path) -> date | None:
    """The day that a run's chat templates take for today, as its newest readable checkpoint has it."""
    days = (day_of(path) for path in reversed(checkpoints(run_dir)))
    return next((day for day in days if day is not None), None)


def where_a_resume_goes_on(run_dir: Path) -> str:
    """Text that says which step a resume would go on from, or that there is no checkpoint."""
    saved = checkpoints(run_dir)
    if not saved:
        return "there is no checkpoint to resume from (train.save_every and save_every_minutes write some on the way)"
    return f"a resume goes on after step {step_of(saved[-1])}"


def require_unfinished(checkpoint: Path, steps: int) -> None:
    """Raise InputError if there is nothing left to do after `checkpoint`, of a run that goes on to step `steps`."""
    trained = step_of(checkpoint)
    if trained > steps or (trained == steps and is_complete(checkpoint.parents[1])):
        raise InputError(f"{checkpoint}: this run is complete; raise train.max_steps or data.epochs to go on")


def checkpoint_to_resume(
    run_dir: Path, identity: Mapping[str, JsonValue], start: RunStart, warn: Callable[[str], None]
) -> tuple[Path, EngineState]:
    """Where a resumed run goes on. Raises InputError, before anything is opened, if it is another run's."""
    if start.from_step is None:
        path, state = newest(run_dir, warn)
    else:
        path, state = of_step(run_dir, start.from_step)
    if not start.force:
        require_same(state.identity, identity, path)
    forced = list(changes(state.identity, identity))
    if forced:
        warn(f"going on by force, as another run than {path} was written by: {'; '.join(forced)}")
    if forced and state.in_flight:
        warn(dropped(state.in_flight, "they are those of the run as it was"))
        state = replace(state, in_flight=())
    for code in other_code(state.identity, identity):
        warn(f"{code} is not what it was when {path} was written: steps from here on are computed by other code")
    if other_held_out(state.identity, identity):
        warn(
            f"the held-out rows are others than before: evaluations after step {state.step} cannot be compared with "
            "earlier ones, so the summary holds none from before training"
        )
        state = replace(state, before=None)
    return path, state
