"""What older runs in the same directory left at Fireworks: a resume takes it up, a new run releases it first."""

from pathlib import Path

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.roles.plugin import Leftover
from distillkit.run_directory.checkpoint import checkpoints
from distillkit_builtin.fireworks.cleanup import clean_up
from distillkit_builtin.fireworks.owned_resources import OwnedResources, record_paths

SERVICES = ("fireworks", "base_urls")
"""The key of the set of services that a run uses."""


def base_urls(run: RunContext) -> set[str]:
    """The services that the plugins of a run declared so far; the set itself, to be added to."""
    return run.share(SERVICES, set[str])


def leftovers_in(run_dir: Path) -> tuple[Leftover, ...]:
    """What earlier runs in `run_dir` left, one entry a service. Raises InputError if a record cannot be read."""
    found = [(path, OwnedResources.read(path, run_dir)) for path in record_paths(run_dir)]
    return tuple(Leftover(path, f"{owned.summary} at Fireworks ({owned.base_url})") for path, owned in found)


async def reclaim_leftovers(run: RunContext, base_url: str, chosen_trainer: str | None) -> OwnedResources:
    """What the run owns at `base_url` before it makes anything.

    Args:
        run: the run that begins, or goes on.
        base_url: the service.
        chosen_trainer: the trainer job that the config names, which is the user's, whoever made it.

    Raises:
        InputError: if an older run's things are at another service, or could not be cleaned up; their record stays.
    """
    owned = OwnedResources.at(run.run_dir, base_url)
    if run.run_dir is None:
        return owned
    for path in record_paths(run.run_dir):
        other = OwnedResources.read(path, run.run_dir)
        if other.base_url not in base_urls(run):
            raise InputError(
                f"an older run in {run.run_dir} left things at {other.base_url}, which this run does not use, and they "
                f"may cost money: {other.summary}. Run once more with base_url {other.base_url}, which cleans them up, "
                f"or remove them there, and then {path}"
            )
    if owned.summary and not checkpoints(run.run_dir):  # where there are some, the run is resumed
        await _release_leftovers(run, owned, chosen_trainer)
    return owned


async def _release_leftovers(run: RunContext, owned: OwnedResources, chosen_trainer: str | None) -> None:
    if chosen_trainer is not None:
        owned.mark_released(chosen_trainer)
    if not owned.summary:
        return
    run.notify(f"Fireworks: cleaning up what an older run in {run.run_dir} left: {owned.summary}")
    problems = await clean_up(owned.base_url, owned)
    if problems:
        raise InputError(
            "an older run in this directory left things at Fireworks that could not be cleaned up:\n"
            + "\n".join(problems)
            + f"\nNothing was made. Try again, or remove them, and then {owned.path}"
        )
    if owned.summary:
        run.notify(f"Fireworks: the older run was to keep these, and they stay: {owned.summary}")
    owned.leave_to_user()
