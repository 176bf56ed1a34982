"""A probe's figures with what they mean, as text and as JSON."""

from dataclasses import dataclass
from pathlib import Path

from distillkit.data.counted import counted
from distillkit.files.atomic import write_json
from distillkit.files.jsonl import explain_write_errors
from distillkit.frozen import Value
from distillkit.probe.figures import ProbeFigures, as_json
from distillkit.probe.verdict import ProbeVerdict
from distillkit.probe.verdicts import verdicts_of

FILE = "probe.json"
"""In the run's directory: what the probe at a run's start measured."""


@dataclass(frozen=True, slots=True, repr=False)
class ProbeReport(Value):
    """What a probe measured, and what that means."""

    figures: ProbeFigures
    """What was measured, by teacher, of the sampling and of the weights: `probe.json` has the same."""
    verdicts: tuple[ProbeVerdict, ...]
    """The worst first."""

    @classmethod
    def of(cls, figures: ProbeFigures) -> "ProbeReport":
        """The report of figures."""
        return cls(figures, verdicts_of(figures))

    def __repr__(self) -> str:
        """One line for a notebook or a log; `figures` and `verdicts` hold the rest."""
        found = [f"{verdict.what} {verdict.level}" for verdict in self.verdicts if verdict.level != "ok"]
        return f"<ProbeReport: {', '.join(found) or 'ok'}; {self.did}>"

    @property
    def refused(self) -> tuple[ProbeVerdict, ...]:
        """Why the run must not be trained; nothing if it may."""
        return tuple(verdict for verdict in self.verdicts if verdict.level == "refuse")

    @property
    def did(self) -> str:
        """What the probe did, on one line without an end."""
        figures = self.figures
        return (
            f"{counted(figures.completions, 'completion')} of {counted(figures.rows, 'row')}, "
            f"{figures.sampled_tokens:,} tokens sampled, {figures.scored_tokens:,} scored"
        )

    def write(self, run_dir: Path) -> None:
        """Write `probe.json` into `run_dir`. Raises RunFailedError where it cannot be written."""
        with explain_write_errors(run_dir / FILE):
            write_json(run_dir / FILE, {"figures": as_json(self.figures), "verdicts": as_json(self.verdicts)}, indent=2)
