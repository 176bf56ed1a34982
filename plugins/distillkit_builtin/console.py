"""Sink `console`: the run on a terminal, or in plain lines where there is none."""

import time
from typing import ClassVar

from pydantic import Field, PrivateAttr
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from distillkit import Sink
from distillkit.context import RunContext
from distillkit.events import (
    EvalResult,
    Evaluated,
    Event,
    Notice,
    PhaseProgress,
    RunFinished,
    RunStarted,
    StepFinished,
)
from distillkit.types import ScoredRollout, Teacher


class ConsoleSink(Sink):
    """Progress with step, reverse KL, tokens a second and ETA; a row a teacher; evaluations as tables."""

    name: ClassVar[str] = "console"

    show_examples: bool = Field(True, description="Show one completion a route at each evaluation.")

    _console: Console = PrivateAttr(default_factory=Console)
    _progress: Progress | None = PrivateAttr(None)
    _task: int = PrivateAttr(0)
    _total: int = PrivateAttr(0)
    _teachers: tuple[Teacher, ...] = PrivateAttr(())
    _stepped: float = PrivateAttr(0.0)

    async def open(self, run: RunContext) -> None:
        """Say that loading begins."""
        self._console.print("loading ...", style="dim")

    async def close(self) -> None:
        """Give the terminal back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def emit(self, event: Event) -> None:
        """Show one event."""
        match event:
            case RunStarted():
                self._start(event)
            case PhaseProgress():
                self._phase(event)
            case StepFinished():
                self._step(event)
            case Evaluated():
                self._evaluated(event)
            case Notice():
                self._console.print(f"{event.level}: {escape(event.message)}", style="yellow", soft_wrap=True)
            case RunFinished():
                if self._progress is not None:
                    self._progress.stop()

    def _start(self, event: RunStarted) -> None:
        plan, self._teachers, self._total = event.plan, event.teachers, event.plan.steps
        self._console.print(
            f"{plan.rows} rows, {plan.steps} steps, {plan.completions} completions, {len(event.teachers)} "
            f"teacher{'s' if len(event.teachers) > 1 else ''}: {escape(', '.join(t.name for t in event.teachers))}"
        )
        if not self._console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("step", total=plan.steps, completed=event.first_step - 1, note="")
        self._progress.start()

    def _phase(self, event: PhaseProgress) -> None:
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], description=f"{event.phase} {event.done}/{event.total}")

    def _step(self, event: StepFinished) -> None:
        metrics = event.metrics
        line = " ".join(self._parts(event))
        self._console.print(escape(line), highlight=False, soft_wrap=True)
        if self._progress is not None:
            kl = metrics.get("train/reverse_kl")
            note = "" if kl is None else f"reverse KL {kl:.3f}"
            self._progress.update(self._progress.task_ids[0], completed=event.step, description="step", note=note)

    def _parts(self, event: StepFinished) -> list[str]:
        metrics = event.metrics
        parts = [f"step {event.step}/{self._total}"]
        if "train/reverse_kl" in metrics:
            parts.append(f"reverse KL {metrics['train/reverse_kl']:.4f}")
        for teacher in self._teachers:
            kl = metrics.get(f"teacher_route/{teacher.slug}/reverse_kl")
            scored = metrics.get(f"teacher_route/{teacher.slug}/scored", 0.0)
            parts.append(f"| {teacher.name}: {'-' if kl is None else f'{kl:.3f}'} ({scored:.0f})")
        tokens, seconds = metrics.get("train/active_tokens", 0.0), metrics.get("time/step", 0.0)
        if seconds:
            parts.append(f"| length {metrics.get('completions/mean_length', 0.0):.0f}, {tokens / seconds:.0f} tok/s")
            left = (self._total - event.step) * seconds
            parts.append(f"| {seconds:.1f} s, ETA {time.strftime('%H:%M:%S', time.gmtime(left))}")
        if metrics.get("completions/failed"):
            parts.append(f"| {metrics['completions/failed']:.0f} FAILED")
        return parts

    def _evaluated(self, event: Evaluated) -> None:
        """One row a metric, one column a route, so that many metrics stay readable."""
        routes = list(dict.fromkeys(route for result in event.results.values() for route in result.routes))
        table = Table(title=f"held-out prompts {event.stage} training (step {event.step})", title_justify="left")
        table.add_column("metric")
        for label in ("all", *routes):
            table.add_column(escape(label), justify="right")
        for name in dict.fromkeys(name for result in event.results.values() for name in _names(result)):
            table.add_row(name, *(_value(event, label, name) for label in ("all", *routes)))
        self._console.print(table)
        shown: set[str] = set()
        for one in event.examples:
            if self.show_examples and one.prompts.route.label not in shown:
                shown.add(one.prompts.route.label)
                self._example(one)

    def _example(self, one: ScoredRollout) -> None:
        question = one.prompts.row.messages[-1].content
        self._console.print(f"[dim]{escape(one.prompts.route.label)}[/dim] > {escape(question)}", highlight=False)
        self._console.print(f"  {escape(one.rollout.text.strip())}", highlight=False, style="cyan")


def _names(result: EvalResult) -> list[str]:
    return [*result.metrics, *(name for values in result.routes.values() for name in values)]


def _value(event: Evaluated, label: str, name: str) -> str:
    for result in event.results.values():
        values = result.metrics if label == "all" else result.routes.get(label, {})
        if name in values:
            return f"{values[name]:.4g}"
    return ""
