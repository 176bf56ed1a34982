"""Sink `console`: the run on a terminal, or in plain lines where stdout is no terminal."""

import os
import time
from contextlib import suppress
from typing import ClassVar

from pydantic import Field, PrivateAttr
from rich.console import Console
from rich.live import Live
from rich.text import Text

from distillkit import (
    Evaluated,
    Event,
    Notice,
    PhaseProgress,
    PhaseStarted,
    RunContext,
    RunFinished,
    RunStarted,
    Sink,
    StepFinished,
)
from distillkit_builtin.sinks.evaluation_tables import evaluation_tables, examples, title
from distillkit_builtin.sinks.heartbeat import Heartbeat
from distillkit_builtin.sinks.notebook_cell import NotebookCell
from distillkit_builtin.sinks.progress_display import ProgressDisplay, duration
from distillkit_builtin.sinks.step_line import step_line

MIN_WIDTH = 20
"""Characters that a line has beside the time of day, on however narrow a terminal."""


class Output(Console):
    """Standard output, that may be closed by who reads it (`distillkit run ... | head`): the run goes on without it."""

    def on_broken_pipe(self) -> None:
        """Be quiet from now on; rich's own way is to end the process."""
        self.quiet = True
        with suppress(OSError, ValueError):  # no file of the operating system
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())  # or Python fails to flush it at the end


class ConsoleSink(Sink):
    """A line a step with the time of day, evaluations as tables of before -> now, and what the run waits for.

    On a terminal the progress stays at its foot, in a notebook in one output of the cell: what the run does now and for
    how long, steps, pace, time left, a row a teacher. In a file what it does is a line every so often.
    """

    name: ClassVar[str] = "console"

    show_examples: bool = Field(True, description="Show one completion a route at each evaluation.")
    heartbeat_seconds: float = Field(
        30.0,
        gt=0,
        description="Without a terminal: write what the run does when nothing was written for so many seconds.",
    )

    _console: Console = PrivateAttr(default_factory=Output)
    _live: Live | None = PrivateAttr(None)
    _heartbeat: Heartbeat | None = PrivateAttr(None)
    _cell: NotebookCell | None = PrivateAttr(None)
    _display: ProgressDisplay = PrivateAttr(default_factory=lambda: ProgressDisplay(0, ()))

    def silence(self) -> None:
        """Write nothing from now on."""
        self._console.quiet = True

    async def open(self, run: RunContext) -> None:
        """Begin the display at the foot of the terminal or in the cell, or elsewhere the lines of what the run does."""
        console = self._console
        self._show(ProgressDisplay(0, ()))
        if console.quiet:
            return
        if console.is_jupyter:
            self._cell = NotebookCell()
            self._show(self._display)
        elif console.is_interactive:
            self._live = Live(get_renderable=lambda: self._display, console=console)
            self._live.start()
        else:
            self._say("loading ...", style="dim")
            self._heartbeat = Heartbeat(self._beat, self.heartbeat_seconds)
            self._heartbeat.start()

    async def close(self) -> None:
        """End what `open` began, so that other output follows below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._cell is not None:
            self._cell.show(self._display, last=True)
            self._cell = None

    def emit(self, event: Event) -> None:
        """Print what an event holds for people, or change the display at the terminal's foot."""
        match event:
            case RunStarted():
                self._start(event)
            case PhaseStarted():
                self._show(self._display.with_phase(event))
            case PhaseProgress():
                self._show(self._display.with_progress(event))
            case StepFinished():
                self._show(self._display.after_step(event))
                if self._cell is None:
                    width = None if self._live is None else self._console.width - len(clock_time())
                    self._say(step_line(event.metrics, self._display, width))
            case Evaluated():
                self._show(self._display.without_phase())
                self._evaluated(event)
            case Notice():
                self._say(event.shown, style="yellow" if event.kind == "warning" else "")
            case RunFinished():
                self._show(self._display.without_phase())
                if self._live is not None:
                    self._live.stop()

    def _start(self, event: RunStarted) -> None:
        plan, teachers = event.plan, event.teachers
        sizes = {"row": plan.rows, "step": plan.steps, "completion": plan.completions, "teacher": len(teachers)}
        said = ", ".join(f"{number:,} {noun}{'' if number == 1 else 's'}" for noun, number in sizes.items())
        display = self._display
        self._show(display.planned(plan.steps, teachers, event.first_step - 1))
        self._say(f"loaded in {duration(display.clock() - display.started)}")
        self._say(f"{said}: {', '.join(teacher.shown for teacher in teachers)}")
        if event.objective:
            self._say(f"loss: {event.objective}")

    def _beat(self) -> None:
        display = self._display
        if display.doing:
            self._say(f"{display.doing} (for {duration(display.seconds_doing)})", style="dim")

    def _show(self, display: ProgressDisplay) -> None:
        """From now on this stands at the foot of the terminal, or in the notebook's cell."""
        self._display = display
        if self._cell is not None:
            self._cell.show(display)

    def _say(self, text: str, style: str = "") -> None:
        """Print a line behind the time of day; on a terminal one that is too long goes on below its beginning."""
        if self._heartbeat is not None:
            self._heartbeat.written()
        clock = clock_time()
        if self._live is not None:
            lines = Text(text).wrap(self._console, max(MIN_WIDTH, self._console.width - len(clock)))
            text = f"\n{' ' * len(clock)}".join(line.plain.rstrip() for line in lines)
        self._console.print(Text(clock, "dim"), Text(text, style), sep="", soft_wrap=True)

    def _evaluated(self, event: Evaluated) -> None:
        self._say(title(event), style="bold")
        self._console.print(evaluation_tables(event, self._display.teachers, self._console.width))
        if self.show_examples:
            for text in examples(event, self._display.teachers, self._console):
                self._console.print(text)


def clock_time() -> str:
    """The time of day, and a space."""
    return time.strftime("%H:%M:%S ")
