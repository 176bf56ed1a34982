"""What sink `console` keeps at the foot of a terminal: the progress of the run, and a row a teacher."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from distillkit import PhaseProgress, StepFinished, Teacher


@dataclass(frozen=True, slots=True)
class TeacherRow:
    """One teacher's part so far, in this process."""

    reverse_kl: float | None = None
    """Mean reverse KL of the newest step in which the teacher scored anything; None before that."""
    scored: int = 0
    failed: int = 0

    def after(self, metrics: Mapping[str, float], prefix: str) -> "TeacherRow":
        """The row with one more step."""
        return TeacherRow(
            metrics.get(f"{prefix}/reverse_kl", self.reverse_kl),
            self.scored + int(metrics.get(f"{prefix}/scored", 0)),
            self.failed + int(metrics.get(f"{prefix}/failed", 0)),
        )


@dataclass(frozen=True, slots=True)
class ProgressDisplay:
    """The state of a run as it is shown; another thread renders it several times a second."""

    total: int
    """Steps."""
    teachers: tuple[Teacher, ...]
    step: int = 0
    reverse_kl: float | None = None
    tokens_a_second: float | None = None
    phases: Mapping[str, str] = field(default_factory=dict)
    """`sample` to `3/16`, of the window that is sampled and scored now."""
    rows: Mapping[str, TeacherRow] = field(default_factory=dict)
    """Teacher name to that teacher's figures."""
    steps_here: int = 0
    """How many of the steps were trained in this process."""
    seconds_here: float = 0.0
    """How long the steps of this process took."""
    clock: Callable[[], float] = time.monotonic
    started: float = field(default_factory=time.monotonic)
    last_step_at: float | None = None
    """When the newest step of this process ended, by `clock`."""

    def with_phase(self, event: PhaseProgress) -> "ProgressDisplay":
        """The display while a window is sampled and scored."""
        return replace(self, phases={**self.phases, event.phase: f"{event.done}/{event.total}"})

    def without_phases(self) -> "ProgressDisplay":
        """The display while no window is sampled or scored."""
        return replace(self, phases={})

    def after_step(self, event: StepFinished) -> "ProgressDisplay":
        """The display with one more step."""
        metrics = event.metrics
        seconds = metrics.get("time/step", 0.0)
        return replace(
            self.without_phases(),
            step=event.step,
            reverse_kl=metrics.get("train/reverse_kl"),
            tokens_a_second=metrics.get("train/active_tokens", 0.0) / seconds if seconds else None,
            rows={
                teacher.name: self._row(teacher).after(metrics, f"teacher_route/{teacher.slug}")
                for teacher in self.teachers
            },
            steps_here=self.steps_here + 1,
            seconds_here=self.seconds_here + seconds,
            last_step_at=self.clock(),
        )

    def _row(self, teacher: Teacher) -> TeacherRow:
        return self.rows.get(teacher.name, TeacherRow())

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end of the run at the mean pace of this process's steps; None before the first."""
        if self.last_step_at is None:
            return None
        left = (self.total - self.step) * self.seconds_here / self.steps_here
        return max(0.0, left - (self.clock() - self.last_step_at))

    def __rich__(self) -> Group:
        """Three parts, one below the other: the run's progress, the phases of the window, a table of the teachers."""
        phases = "  ".join(f"{phase} {count}" for phase, count in self.phases.items())
        return Group(self._progress(), Text(phases or " ", style="dim"), self._teacher_table())

    def _progress(self) -> Table:
        kl, pace, left = self.reverse_kl, self.tokens_a_second, self.seconds_left
        table = Table.grid(
            Column(no_wrap=True), Column(max_width=30), *(Column(no_wrap=True) for _ in range(4)), padding=(0, 2)
        )
        table.add_row(
            f"step {self.step}/{self.total}",
            ProgressBar(total=self.total, completed=self.step),
            f"reverse KL {'-' if kl is None else f'{kl:.4f}'}",
            f"{'-' if pace is None else f'{pace:,.0f}'} tok/s",
            duration(self.clock() - self.started),
            f"ETA {'-' if left is None else duration(left)}",
        )
        return table

    def _teacher_table(self) -> Table:
        table = Table("teacher", box=None, header_style="dim", padding=(0, 2, 0, 0))
        for title in ("reverse KL", "scored", "failed"):
            table.add_column(title, justify="right")
        for teacher in self.teachers:
            row = self._row(teacher)
            kl = "-" if row.reverse_kl is None else f"{row.reverse_kl:.4f}"
            failed = Text(f"{row.failed:,}", style="bold red" if row.failed else "")
            table.add_row(Text(teacher.name), kl, f"{row.scored:,}", failed)
        return table


def duration(seconds: float) -> str:
    """Seconds, rounded up, as `0:01:30`; with days in front where there are some."""
    return str(timedelta(seconds=math.ceil(seconds)))
