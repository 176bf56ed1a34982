"""How commands begin that sample or score once: rank 0 shows notices, every other rank only does its share."""

import asyncio
from collections.abc import Callable

from distillkit.cli.reporting import ERR
from distillkit.config.run_config import RunConfig
from distillkit.events import Notice
from distillkit.loop.execute import work_beside
from distillkit.ranks import Rank


def tells(*, quiet: bool) -> Callable[[Notice], None]:
    """What shows notices on standard error, so that what a program reads is the result alone; `quiet`: none."""

    def tell(notice: Notice) -> None:
        if not quiet:
            ERR.say(notice.shown)

    return tell


def start_command(config: RunConfig, rank: Rank, *, quiet: bool) -> Callable[[Notice], None] | None:
    """What shows notices; None on a rank that has done its share beside rank 0, for which the command is over."""
    if not rank.runs_engine:
        asyncio.run(work_beside(config, rank))
        return None
    return tells(quiet=quiet)
