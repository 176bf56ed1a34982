"""What an older run in the same directory left at Fireworks: a resume takes it up, a new run lets go of it first."""

from collections.abc import Awaitable, Callable

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.run_directory.checkpoint import checkpoints
from distillkit_builtin.fireworks.owned_resources import Belongings, left_elsewhere

SERVICES = ("fireworks", "base_urls")
"""The key of the set of services that a run uses."""


def base_urls(run: RunContext) -> set[str]:
    """The services that the plugins of a run use, as far as they were checked."""
    return run.share(SERVICES, set[str])


async def inherit(
    run: RunContext, base_url: str, chosen_trainer: str | None, clean: Callable[[Belongings], Awaitable[list[str]]]
) -> Belongings:
    """What the run has at `base_url` before it makes anything.

    Args:
        run: the run that begins, or goes on.
        base_url: the service.
        chosen_trainer: the trainer job that the config names, which is the user's, whoever made it.
        clean: cleans up, and says what it could not.

    Raises:
        InputError: if an older run's things are at another service, or could not be cleaned up; they stay written down.
    """
    belongings = Belongings.at(run.run_dir, base_url)
    if run.run_dir is None:
        return belongings
    for other in left_elsewhere(run.run_dir, base_urls(run)):
        raise InputError(
            f"an older run in {run.run_dir} left things at {other.base_url}, which this run does not use, and they may "
            f"cost money: {other.named}. Run once more with base_url {other.base_url}, which cleans them up, or remove "
            f"them there, and then {other.path}"
        )
    if belongings.named and not checkpoints(run.run_dir):  # where there are some, the run is resumed
        await _let_go(run, belongings, chosen_trainer, clean)
    return belongings


async def _let_go(
    run: RunContext,
    belongings: Belongings,
    chosen_trainer: str | None,
    clean: Callable[[Belongings], Awaitable[list[str]]],
) -> None:
    if chosen_trainer is not None:
        belongings.forget(chosen_trainer)
    if not belongings.named:
        return
    run.notify(f"Fireworks: cleaning up what an older run in {run.run_dir} left: {belongings.named}")
    problems = await clean(belongings)
    if problems:
        raise InputError(
            "an older run in this directory left things at Fireworks that could not be cleaned up:\n"
            + "\n".join(problems)
            + f"\nNothing was made. Try again, or remove them, and then {belongings.path}"
        )
    if belongings.named:
        run.notify(f"Fireworks: the older run was to keep these, and they stay: {belongings.named}")
    belongings.hand_over()
