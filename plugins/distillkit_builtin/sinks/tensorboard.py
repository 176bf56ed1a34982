"""Sink `tensorboard`: event files, written by TensorBoard's own writer; needs neither TensorFlow nor PyTorch."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, JsonValue, PrivateAttr

from distillkit import CheckReport, RunContext
from distillkit_builtin.sinks.tracker import COLUMNS, Ending, Sample, Tracker, missing_package

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

FOLDER = "tensorboard"
DONE_AT = "time/unix"


class TensorboardSink(Tracker):
    """Metrics, the config and some completions as event files: `tensorboard --logdir runs` shows all runs.

    A resumed run writes one more file, which tells TensorBoard to forget the steps that are trained again.
    """

    name: ClassVar[str] = FOLDER
    libraries: ClassVar[frozenset[str]] = frozenset({"tensorboard"})
    writes: ClassVar[frozenset[str]] = frozenset({FOLDER})

    dir: str | None = Field(
        None, description="Where its files are kept, in a folder of the run's name; null: the run's directory."
    )

    _writer: "EventFileWriter | None" = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Report what is not installed."""
        return CheckReport(missing=missing_package(self.name, "tensorboard"))

    async def open(self, run: RunContext) -> None:
        """Begin a file."""
        folder = self._folder(run)
        if folder is None:
            return
        logging.getLogger("tensorboard").setLevel(logging.ERROR)  # says that TensorFlow is not there
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder))

    @property
    def is_open(self) -> bool:
        """Whether there is a file."""
        return self._writer is not None

    def begin(self, config: dict[str, JsonValue], first_step: int) -> None:
        """Forget the steps from `first_step` on, and show the config."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if self._writer is not None and first_step > 1:
            session = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=first_step, session_log=session))
        self._text("config", f"```json\n{json.dumps(config, indent=2, ensure_ascii=False)}\n```", first_step - 1)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Write a value a metric, at the time that the step was done, for which a value's 24 bits are too few."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items() if name != DONE_AT]
        self._write(Summary(value=values), step, metrics.get(DONE_AT))

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """Write a table as text."""
        rows = [[markdown_cell(cell) for cell in sample.cells] for sample in samples]
        lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
        self._text("samples", "\n".join(f"| {' | '.join(line)} |" for line in lines), step)

    def end(self, ending: Ending) -> None:
        """Write status, verdict and summary as texts."""
        shown = json.dumps(ending.summary, indent=2, ensure_ascii=False)
        self._text("verdict", "\n\n".join([f"**{ending.status}**", *ending.verdict.split("\n")]), ending.step)
        self._text("summary", f"```json\n{shown}\n```", ending.step)

    async def close(self) -> None:
        """Have all of it on the disk."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _folder(self, run: RunContext) -> Path | None:
        if self.dir is not None:
            return Path(self.dir) / run.name
        return None if run.run_dir is None else run.run_dir / FOLDER

    def _text(self, tag: str, markdown: str, step: int) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._write(text_pb(tag, markdown), step)

    def _write(self, summary: "Summary", step: int, moment: float | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        if self._writer is not None:
            wall_time = time.time() if moment is None else moment
            self._writer.add_event(Event(wall_time=wall_time, step=step, summary=summary))
            self._writer.flush()


def markdown_cell(value: str | float | None) -> str:
    """A value as a cell of a table: its lines are kept, and nothing in it is taken for Markdown or HTML."""
    if not isinstance(value, str):
        return "" if value is None else f"{value:.4f}"
    for plain, written in (("&", "&amp;"), ("<", "&lt;"), ("\\", "\\\\"), *((each, f"\\{each}") for each in "`*_[]|")):
        value = value.replace(plain, written)
    return value.replace("\r", "").replace("\n", "<br>")
