"""Which of the processes of a run this is, where torchrun started several; rank 0 runs the engine."""

import os
from dataclasses import dataclass

from distillkit.errors import InputError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""What torchrun puts into each process's environment
(https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables)."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One process among `count`."""

    index: int = 0
    count: int = 1
    on_host: int = 0
    """Among those on the same host: which device it takes."""
    per_host: int = 1

    @property
    def command(self) -> tuple[str, ...]:
        """What stands before `run` to start as many processes."""
        if self.count == 1:
            return ("distillkit",)
        return ("torchrun", "--nproc-per-node", str(self.per_host), "-m", "distillkit")

    @property
    def directs(self) -> bool:
        """Whether this is the process that runs the engine."""
        return self.index == 0


def this_rank() -> Rank:
    """As torchrun says; alone without it. Raises InputError for an environment that says half of it."""
    given = {name: os.environ[name] for name in NAMES if name in os.environ}
    if "WORLD_SIZE" not in given:
        return Rank()
    try:
        index, count, on_host = (int(given[name]) for name in NAMES)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the environment has {', '.join(f'{k}={v}' for k, v in given.items())}: torchrun sets all of "
            f"{', '.join(NAMES)}, to numbers; start with torchrun, or unset them"
        ) from error
    return Rank(index, count, on_host, int(os.environ.get("LOCAL_WORLD_SIZE", count)))
