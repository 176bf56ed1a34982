"""Sink `console`: the run on a terminal, or in plain lines where stdout is no terminal."""

from typing import ClassVar

from pydantic import Field, PrivateAttr
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from distillkit import (
    EvalResult,
    Evaluated,
    Event,
    Notice,
    PhaseProgress,
    RunContext,
    RunFinished,
    RunStarted,
    ScoredRollout,
    Sink,
    StepFinished,
)
from distillkit_builtin.sinks.notebook_cell import NotebookCell
from distillkit_builtin.sinks.progress_display import ProgressDisplay, duration


class ConsoleSink(Sink):
    """Progress with step, reverse KL, tokens a second and ETA; a row a teacher; evaluations as tables.

    On a terminal the progress stays at its foot, in a notebook in one output of the cell; elsewhere a step is a line.
    """

    name: ClassVar[str] = "console"

    show_examples: bool = Field(True, description="Show one completion a route at each evaluation.")

    _console: Console = PrivateAttr(default_factory=Console)
    _live: Live | None = PrivateAttr(None)
    _cell: NotebookCell | None = PrivateAttr(None)
    _display: ProgressDisplay = PrivateAttr(default_factory=lambda: ProgressDisplay(0, ()))

    def silence(self) -> None:
        """Write nothing from now on."""
        self._console.quiet = True

    async def open(self, run: RunContext) -> None:
        """Write that loading begins."""
        self._console.print("loading ...", style="dim")

    async def close(self) -> None:
        """Stop the display at the foot of the terminal, so that other output follows below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._cell is not None:
            self._cell.show(self._display, last=True)
            self._cell = None

    def emit(self, event: Event) -> None:
        """Print what an event holds for people, or change the display at the terminal's foot."""
        match event:
            case RunStarted():
                self._start(event)
            case PhaseProgress():
                self._show(self._display.with_phase(event))
            case StepFinished():
                self._step(event)
            case Evaluated():
                self._show(self._display.without_phases())
                self._evaluated(event)
            case Notice():
                self._console.print(f"{event.level}: {escape(event.message)}", style="yellow", soft_wrap=True)
            case RunFinished():
                self._show(self._display.without_phases())
                if self._live is not None:
                    self._live.stop()

    def _start(self, event: RunStarted) -> None:
        plan, teachers = event.plan, event.teachers
        sizes = {"row": plan.rows, "step": plan.steps, "completion": plan.completions, "teacher": len(teachers)}
        said = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in sizes.items())
        self._console.print(f"{said}: {escape(', '.join(teacher.name for teacher in teachers))}")
        self._display = ProgressDisplay(plan.steps, teachers, step=event.first_step - 1)
        console = self._console
        if console.is_jupyter and not console.quiet:
            self._cell = NotebookCell()
            self._show(self._display)
        elif console.is_interactive and not console.quiet:
            self._live = Live(get_renderable=lambda: self._display, console=console)
            self._live.start()

    def _show(self, display: ProgressDisplay) -> None:
        """From now on this stands at the foot of the terminal, or in the notebook's cell."""
        self._display = display
        if self._cell is not None:
            self._cell.show(display)

    def _step(self, event: StepFinished) -> None:
        self._show(self._display.after_step(event))
        if self._live is None and self._cell is None:
            self._console.print(escape(" ".join(self._parts(event))), highlight=False, soft_wrap=True)

    def _parts(self, event: StepFinished) -> list[str]:
        metrics = event.metrics
        parts = [f"step {event.step}/{self._display.total}"]
        if "train/reverse_kl" in metrics:
            parts.append(f"reverse KL {metrics['train/reverse_kl']:.4f}")
        for teacher in self._display.teachers:
            kl = metrics.get(f"teacher_route/{teacher.slug}/reverse_kl")
            scored = metrics.get(f"teacher_route/{teacher.slug}/scored", 0.0)
            parts.append(f"| {teacher.name}: {'-' if kl is None else f'{kl:.3f}'} ({scored:.0f})")
        tokens, seconds = metrics.get("train/active_tokens", 0.0), metrics.get("time/step", 0.0)
        if seconds:
            parts.append(f"| length {metrics.get('completions/mean_length', 0.0):.0f}, {tokens / seconds:.0f} tok/s")
            parts.append(f"| {seconds:.1f} s, ETA {duration(self._display.seconds_left or 0.0)}")
        if metrics.get("completions/failed"):
            parts.append(f"| {metrics['completions/failed']:.0f} FAILED")
        return parts

    def _evaluated(self, event: Evaluated) -> None:
        """One row a metric, one column a route, so that many metrics stay readable."""
        routes = list(dict.fromkeys(route for result in event.results.values() for route in result.routes))
        self._console.print(
            f"held-out prompts {event.stage} training (step {event.step})", style="italic", soft_wrap=True
        )
        table = Table("metric")
        for label in ("all", *routes):
            table.add_column(escape(label), justify="right")
        for name in dict.fromkeys(name for result in event.results.values() for name in _names(result)):
            table.add_row(name, *(_value(event, label, name) for label in ("all", *routes)))
        self._console.print(table)
        shown: set[str] = set()
        for scored in event.examples:
            if self.show_examples and scored.prompts.route.label not in shown:
                shown.add(scored.prompts.route.label)
                self._example(scored)

    def _example(self, scored: ScoredRollout) -> None:
        question = scored.prompts.row.messages[-1].content
        self._console.print(f"[dim]{escape(scored.prompts.route.label)}[/dim] > {escape(question)}", highlight=False)
        self._console.print(f"  {escape(scored.rollout.text.strip())}", highlight=False, style="cyan")


def _names(result: EvalResult) -> list[str]:
    return [*result.metrics, *(name for values in result.routes.values() for name in values)]


def _value(event: Evaluated, label: str, name: str) -> str:
    for result in event.results.values():
        values = result.metrics if label == "all" else result.routes.get(label, {})
        if name in values:
            return f"{values[name]:.4g}"
    return ""
