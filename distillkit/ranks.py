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
    host_index: int = 0
    """The number of its host, of torchrun's agent there (`--node-rank`)."""
    host_count: int = 1
    """How many hosts there are, each with an agent of torchrun."""
    meets_at: tuple[str, str] | None = None
    """Address and port where the processes meet; None where that is not known."""

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
        local_count = int(os.environ.get("LOCAL_WORLD_SIZE", count))
        hosts = int(os.environ.get("GROUP_RANK", 0)), int(os.environ.get("GROUP_WORLD_SIZE", 1))
        address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
        meets_at = None if address is None or port is None else (address, port)
        return cls(index, count, local_index, local_count, *hosts, meets_at)

    @property
    def launch_command(self) -> tuple[str, ...]:
        """The words before `run` that start as many processes; of several hosts, this one's."""
        if self.count == 1:
            return ("distillkit",)
        each = ("--nproc-per-node", str(self.local_count), "-m", "distillkit")
        if self.host_count == 1:
            return ("torchrun", *each)
        address, port = self.meets_at or ("ADDRESS", "29500")
        hosts = ("--nnodes", str(self.host_count), "--node-rank", str(self.host_index))
        return ("torchrun", *hosts, "--master-addr", address, "--master-port", port, *each)

    @property
    def runs_engine(self) -> bool:
        """Whether this is rank 0, which runs the engine."""
        return self.index == 0


ONLY = Rank()
"""The rank of a process that is alone."""
