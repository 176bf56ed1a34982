"""Sink `trackio`: runs in Trackio's database on this machine, which `trackio show` shows."""

import contextvars
import io
import os
import secrets
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, ClassVar, TextIO, TypeVar

from pydantic import Field, JsonValue, PrivateAttr

from distillkit import CheckReport, InputError, RunContext
from distillkit_builtin.sinks.tracker import COLUMNS, Ending, KeptRun, OnlyOnce, Sample, UploadsWeights, missing_package

if TYPE_CHECKING:
    from trackio.run import Run

T = TypeVar("T")
KEPT = "trackio.json"
ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class TrackioSink(UploadsWeights):
    """Metrics, the config and some completions in Trackio's database: `trackio show` has the runs of all projects.

    The database is the user's, not the run's: in the folder that TRACKIO_DIR names, or else in the cache of the Hugging
    Face libraries. `trackio sync` brings a project to a Space.
    """

    name: ClassVar[str] = "trackio"
    libraries: ClassVar[frozenset[str]] = frozenset({"trackio"})
    writes: ClassVar[frozenset[str]] = frozenset({KEPT})
    closing_seconds: ClassVar[float] = 60.0

    project: str = Field("distillkit", min_length=1, description="The project.")
    run_name: str | None = Field(
        None, description="How the run is called there, with some digits behind it; null: the run's name."
    )
    group: str | None = Field(None, description="Runs of one group are shown together.")

    _run: "Run | None" = PrivateAttr(None)
    _once: OnlyOnce = PrivateAttr(default_factory=lambda: OnlyOnce.after({}))
    _notify: Callable[[str], None] | None = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Report the project and what is not installed. Raises InputError where Trackio is to write elsewhere."""
        for variable in ELSEWHERE:
            if os.environ.get(variable):
                raise InputError(
                    f"sink 'trackio' writes to this machine, and {variable} is set: unset it, and bring the project "
                    "there later: trackio sync"
                )
        return CheckReport((f"project {self.project}",), missing=missing_package(self.name, "trackio"))

    async def open(self, run: RunContext) -> None:
        """Begin the run there, or go on with the one that this run began; a notice says how it is seen."""
        kept = KeptRun.of(run, KEPT)
        known = kept.read()
        called = known.get("name") or f"{self.run_name or run.name}-{secrets.token_hex(2)}"
        project = known.get("project") or self.project
        self._run = quietly(lambda: _begin(project, called, self.group))
        self._once, self._notify = _logged(project, called), run.notify
        kept.write(project=project, name=called)
        run.notify(f"trackio: run {called}; see it with: trackio show --project {project}")

    @property
    def is_open(self) -> bool:
        """Whether the run has begun there."""
        return self._run is not None

    def begin(self, config: dict[str, JsonValue], first_step: int) -> None:
        """Keep the config, which goes there with the first metrics."""
        if self._run is not None:
            self._run.config.update(config)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log what is not there yet; Trackio's own thread writes it."""
        new = self._once.new(metrics, step)
        if self._run is not None and new:
            self._run.log(dict(new), step=step)

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """Log a table."""
        import trackio

        if self._run is not None and self._once.new({"eval/samples": 0.0}, step):
            table = trackio.Table(columns=list(COLUMNS), data=[list(sample.cells) for sample in samples])
            self._run.log({"samples": table}, step=step)

    def end(self, ending: Ending) -> None:
        """Keep the verdict as Markdown, and the weights where they are wanted."""
        import trackio

        run = self._run
        if run is None:
            return
        lines = "\n".join(f"- {line}" for line in ending.verdict.splitlines())
        run.log({"verdict": trackio.Markdown(f"**{ending.status}**\n\n{lines}")}, step=ending.step)
        run.config.update(status=ending.status, summary=ending.summary)
        said = self._once.notice(self.name)
        if said is not None and self._notify is not None:
            self._notify(said)
        if self.upload_weights and ending.status == "completed" and ending.weights is not None:
            run.log_artifact(ending.weights, name=f"{run.name}-weights", type="model")

    async def close(self) -> None:
        """End the run there, and wait until all is written."""
        run, self._run = self._run, None
        if run is not None:
            quietly(run.finish)


def _begin(project: str, called: str, group: str | None) -> "Run":
    import trackio

    return trackio.init(
        project, name=called, group=group, resume="allow", embed=False, auto_log_cpu=False, auto_log_gpu=False
    )


def _logged(project: str, called: str) -> OnlyOnce:
    """What it has of the run already."""
    from trackio.sqlite_storage import SQLiteStorage

    found: dict[int, list[str]] = {}
    for row in SQLiteStorage.get_logs(project, called):
        found.setdefault(int(row["step"]), []).extend(name for name in row if name not in ("step", "timestamp"))
    return OnlyOnce.after(found)


def quietly(call: Callable[[], T]) -> T:
    """What it returns; what it prints is for whoever calls it by hand.

    A run that the same process has open there, as a notebook may, is not this one's to end: it is not seen from here.
    """
    with redirect_stdout(OthersOutput(sys.stdout)):
        return contextvars.Context().run(call)


class OthersOutput(io.TextIOBase):
    """Standard output without what this thread writes. That of others goes on, also where the call never returns."""

    def __init__(self, inner: TextIO) -> None:
        """Made in the thread that is to be silent."""
        self._inner, self._silent = inner, threading.get_ident()

    def write(self, text: str) -> int:
        """Write the text of any other thread."""
        return len(text) if threading.get_ident() == self._silent else self._inner.write(text)

    def flush(self) -> None:
        """Flush what is below."""
        self._inner.flush()

    def isatty(self) -> bool:
        """As what is below: it is a terminal or none."""
        return self._inner.isatty()

    def fileno(self) -> int:
        """That of what is below."""
        return self._inner.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of what is below."""
        return self._inner.encoding
