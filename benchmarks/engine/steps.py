"""Whole steps: what a completion costs the engine, what a row costs it besides, and whether memory grows."""

import resource
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PrivateAttr

import distillkit
from benchmarks.engine.inputs import TEACHERS
from benchmarks.engine.instant import TOKENS, InstantLoss, instant_config
from distillkit import Sink
from distillkit.events import Event, StepFinished

FEW, MANY = 1, 64
"""Completions a row, of the two runs that are compared."""
ROWS = {FEW: 256, MANY: 16}
"""A step's rows in either."""
STEPS = 9
LOSS = "importance_sampling"


def measure(data: Path, tokenizer: Path, repeats: int, loss: str = LOSS) -> tuple[float, float]:
    """Seconds of CPU time a completion of 256 tokens, and a row: two runs, two unknowns."""
    few, many = (min(_step(data, tokenizer, each, loss) for _ in range(repeats)) for each in (FEW, MANY))
    # few = ROWS[FEW] * (row + FEW * completion), and many likewise; what a step costs as such counts as its rows'.
    completion = (many / ROWS[MANY] - few / ROWS[FEW]) / (MANY - FEW)
    return completion, few / ROWS[FEW] - FEW * completion


def _step(data: Path, tokenizer: Path, completions: int, loss: str) -> float:
    """The mean of a run's steps but the first: a garbage collection that comes every few steps is a cost too."""
    return statistics.fmean(run(data, tokenizer, completions, rows=ROWS[completions], steps=STEPS, loss=loss)[1:])


class Clock(Sink):
    """Reads the CPU time of this process at the end of each step: other work on the machine adds little to it."""

    name: ClassVar[str] = "clock"

    _read: list[float] = PrivateAttr(default_factory=lambda: [time.process_time()])

    @property
    def steps(self) -> list[float]:
        """Seconds of each; of the first since the run was configured."""
        return [after - before for before, after in pairwise(self._read)]

    def emit(self, event: Event) -> None:
        """Read."""
        if isinstance(event, StepFinished):
            self._read.append(time.process_time())


def run(
    data: Path,
    tokenizer: Path | None,
    completions: int,
    *,
    rows: int,
    steps: int,
    loss: str = LOSS,
    sink: Sink | None = None,
) -> list[float]:
    """Seconds of CPU time of each step; `loss` by its name."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        section = {"path": str(data), "max_rows": min(rows * steps, 4000), "epochs": 1 + rows * steps // 4000}
        config = instant_config(
            Path(folder),
            section,
            TEACHERS,
            tokenizer,
            sampling={"max_completion_tokens": TOKENS, "completions_per_prompt": completions},
            train={"prompt_groups_per_step": rows, "max_steps": steps},
            probe={"at_start": "never"},
            loss=InstantLoss() if loss == InstantLoss.name else loss,
            sinks=(clock,) if sink is None else (clock, sink),
        )
        distillkit.run(config)
    return clock.steps


class Gauge(Sink):
    """Reads this process's memory at the end of two steps."""

    name: ClassVar[str] = "gauge"

    at: tuple[int, int] = Field(description="The steps.")

    _seen: dict[int, int] = PrivateAttr(default_factory=dict)

    @property
    def seen(self) -> list[int]:
        """Bytes at either."""
        return [self._seen[step] for step in self.at]

    def emit(self, event: Event) -> None:
        """Read."""
        if isinstance(event, StepFinished) and event.step in self.at:
            self._seen[event.step] = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def memory(data: Path, early: int, late: int) -> list[int]:
    """Bytes of this process after so many steps, and after so many more, of eight rows with four completions each."""
    gauge = Gauge(at=(early, late))
    run(data, None, 4, rows=8, steps=late, sink=gauge)
    return gauge.seen


if __name__ == "__main__":
    print(*memory(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
