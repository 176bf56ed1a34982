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
    """Its number among all processes."""
    count: int = 1
    """How many processes there are."""
    local_index: int = 0
    """Its number among the processes of the same host, which is the number of the device that it takes."""
    local_count: int = 1
    """How many processes there are on the same host."""

    @classmethod
    def from_environment(cls) -> "Rank":
        """As torchrun set the environment; without torchrun, the only process.

        Read once, where a process begins (`distillkit.run`, the command line); everything else is given the value.

        Raises:
            InputError: if the environment has some of torchrun's variables and not all, or not as numbers.
        """
        given = {name: os.environ[name] for name in NAMES if name in os.environ}
        if "WORLD_SIZE" not in given:
            return cls()
        try:
            index, count, local_index = (int(given[name]) for name in NAMES)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"the environment has {', '.join(f'{k}={v}' for k, v in given.items())}: torchrun sets all of "
                f"{', '.join(NAMES)}, to numbers; start with torchrun, or unset them"
            ) from error
        return cls(index, count, local_index, int(os.environ.get("LOCAL_WORLD_SIZE", count)))

    @property
    def launch_command(self) -> tuple[str, ...]:
        """The words before `run` that start as many processes."""
        if self.count == 1:
            return ("distillkit",)
        return ("torchrun", "--nproc-per-node", str(self.local_count), "-m", "distillkit")

    @property
    def runs_engine(self) -> bool:
        """Whether this is rank 0, which runs the engine."""
        return self.index == 0


ONLY = Rank()
"""The rank of a process that is alone."""
