"""What sink `console` keeps at the foot of a terminal: what the run does now, how far it is, and a row a teacher."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from distillkit import PhaseProgress, PhaseStarted, StepFinished, Teacher, significant

DOES: Mapping[str, str] = {
    "load": "loading",
    "publish": "publishing the weights",
    "probe": "probing sampler and teachers",
    "evaluate": "evaluating",
    "sample": "sampling and scoring",
    "train": "training",
    "save": "saving a checkpoint",
    "export": "writing the final weights",
}
DONE: Mapping[str, str] = {"sample": "sampled", "score": "scored"}


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
    """Steps; 0 until everything is loaded."""
    teachers: tuple[Teacher, ...]
    step: int = 0
    reverse_kl: float | None = None
    tokens_a_second: float | None = None
    phase: PhaseStarted | None = None
    """What the run does now."""
    phase_started: float = 0.0
    """Since when, by `clock`."""
    counts: Mapping[str, str] = field(default_factory=dict)
    """`sample` to `3/16`, of what is sampled and scored now."""
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

    def planned(self, total: int, teachers: tuple[Teacher, ...], step: int) -> "ProgressDisplay":
        """The display once everything is loaded: so many steps in all, `step` of them trained before."""
        return replace(self, total=total, teachers=teachers, step=step)

    def with_phase(self, event: PhaseStarted) -> "ProgressDisplay":
        """The display from the beginning of a phase on."""
        return replace(self, phase=event, phase_started=self.clock(), counts={})

    def with_progress(self, event: PhaseProgress) -> "ProgressDisplay":
        """The display while completions are sampled and scored."""
        return replace(self, counts={**self.counts, event.phase: f"{event.done}/{event.total}"})

    def without_phase(self) -> "ProgressDisplay":
        """The display while nothing is waited for."""
        return replace(self, phase=None, counts={})

    def after_step(self, event: StepFinished) -> "ProgressDisplay":
        """The display with one more step."""
        metrics = event.metrics
        seconds = metrics.get("time/step", 0.0)
        return replace(
            self.without_phase(),
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

    @property
    def doing(self) -> str:
        """What the run does now, in words: `step 3: sampling and scoring, sampled 3/16`; empty while it is unknown."""
        if self.phase is None:
            return ""
        words = DOES[self.phase.phase]
        if self.phase.phase in ("sample", "train"):
            words = f"step {self.step + 1}: {words}"
        named = f"{words} {self.phase.what}" if self.phase.what else words
        return ", ".join([named, *(f"{DONE[name]} {count}" for name, count in self.counts.items())])

    @property
    def seconds_doing(self) -> float:
        """How long that has lasted."""
        return self.clock() - self.phase_started

    def __rich__(self) -> Group:
        """What the run does now; then, once it is loaded, how far it is, and a table of the teachers."""
        doing = f"{self.doing}  {duration(self.seconds_doing)}" if self.doing else " "
        now = Text(doing, style="dim", no_wrap=True, overflow="ellipsis")
        return Group(now, self._progress(), self._teacher_table()) if self.total else Group(now)

    def _progress(self) -> Table:
        kl, pace, left = self.reverse_kl, self.tokens_a_second, self.seconds_left
        table = Table.grid(
            Column(no_wrap=True), Column(max_width=30), *(Column(no_wrap=True) for _ in range(4)), padding=(0, 2)
        )
        table.add_row(
            f"step {self.step}/{self.total}",
            ProgressBar(total=self.total, completed=self.step),
            f"reverse KL {'-' if kl is None else significant(kl)}",
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
            kl = "-" if row.reverse_kl is None else significant(row.reverse_kl)
            failed = Text(f"{row.failed:,}", style="bold red" if row.failed else "")
            table.add_row(Text(teacher.shown), kl, f"{row.scored:,}", failed)
        return table


def duration(seconds: float) -> str:
    """Seconds, rounded up, as `0:01:30`; with days in front where there are some."""
    return str(timedelta(seconds=math.ceil(seconds)))
