"""What a run left, as code that started it gets it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import JsonValue

from distillkit.data.counted import counted
from distillkit.errors import RunFailedError
from distillkit.events import EvalStage
from distillkit.report.notebook import notebook_html
from distillkit.report.run_figure import run_figure
from distillkit.run_directory.codec import from_json
from distillkit.run_directory.directory import read_summary
from distillkit.run_directory.run_files import read_metrics
from distillkit.significant import significant
from distillkit.verdict.verdict_sentences import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("reverse_kl", "exact_match")
"""Metrics of evaluations that a result shows of itself."""


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """The result of a finished run, read from its directory."""

    run_dir: Path
    """The run directory."""
    adapter_path: Path
    """`adapter/` in PEFT format, or `model/` where all weights were trained."""
    steps: int
    """How many steps were trained."""
    eval: Mapping[EvalStage, Mapping[str, Any]]
    """`before` and `after` to metrics, and below `routes` those of each route, as in `summary.json`."""
    metrics: Sequence[Mapping[str, JsonValue]]
    """One row a step, ready for `pandas.DataFrame(result.metrics)`."""
    summary: Mapping[str, JsonValue]
    """The content of `summary.json`."""

    @property
    def verdict(self) -> Verdict:
        """Whether it worked, as far as it was measured: `verdict` of the summary."""
        return from_json(Verdict, cast(Mapping[str, Any], self.summary["verdict"]))

    @property
    def last_line(self) -> str:
        """What was done, in one line: `done: 3 steps, 6 completions trained, 0 failed, 12 s`."""
        trained, failed, seconds = (
            self.summary[name] for name in ("trained_completions", "failed_completions", "wall_s")
        )
        return (
            f"done: {counted(self.steps, 'step')}, {counted(int(str(trained)), 'completion')} trained, "
            f"{failed} failed, {float(str(seconds)):.0f} s"
        )

    def __repr__(self) -> str:
        """One line for a notebook or a log; the fields hold the rest."""
        before, after = self.eval.get("before", {}), self.eval.get("after", {})
        moved = [
            f"{name} {significant(before[name])} -> {significant(after[name])}"
            for name in SHOWN
            if isinstance(before.get(name), int | float) and isinstance(after.get(name), int | float)
        ]
        parts = [counted(self.steps, "step"), *moved, str(self.adapter_path)]
        return f"<RunResult {self.run_dir}: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        """The result in a notebook: what it came to, its main curves, and where the report is."""
        return notebook_html(self.run_dir)

    def plot(self) -> "Figure":
        """The run's main curves as a figure of matplotlib, which comes with the extra `plot`.

        Raises:
            MissingExtraError: with the pip command, if matplotlib is not installed.
        """
        return run_figure(self.run_dir)


def finished_run(run_dir: Path, sent: Mapping[str, str] | None = None) -> RunResult:
    """The result of a run of another process, whose disk need not be this one's where files of its directory were sent.

    Raises RunFailedError if it has not completed, or is not found here.
    """
    files = sent or {}
    summary = json.loads(files["summary.json"]) if "summary.json" in files else read_summary(run_dir)
    if summary is None or summary["status"] != "completed":
        ended = "no summary.json is there" if summary is None else f"its status is {summary['status']}"
        raise RunFailedError(f"{run_dir}: rank 0 ended the run, and {ended}; rank 0 says why")
    stages = cast(dict[EvalStage, Mapping[str, Any]], summary["eval"])
    steps, adapter = int(str(summary["steps"])), Path(str(summary["adapter_path"]))
    lines = files["metrics.jsonl"].splitlines() if "metrics.jsonl" in files else None
    metrics = read_metrics(run_dir) if lines is None else [json.loads(line) for line in lines]
    return RunResult(run_dir, adapter, steps, stages, metrics, summary)
