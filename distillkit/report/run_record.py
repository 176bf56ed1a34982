"""A run's directory as values, whatever state it is in: what cannot be read is a sentence in `problems`, no error."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from distillkit.frozen import FrozenDict, Value, freeze_fields
from distillkit.report.lost_completions import Losses
from distillkit.report.run_log import LogLine
from distillkit.verdict.verdict_sentences import Verdict

Status = Literal["completed", "running", "stopped", "interrupted", "failed", "unknown"]
"""As `summary.json` has it; `stopped`: it says `running`, and no process is there; `unknown`: nothing says."""
Step = Mapping[str, float | None]
"""A line of `metrics.jsonl`: `step`, and each metric; None where it was no finite number."""


@dataclass(frozen=True, slots=True)
class RunRecord(Value):
    """What a run left, or has so far."""

    run_dir: Path
    """The run directory, as it was named."""
    name: str
    """The run's."""
    status: Status
    error: str | None
    """What ended it, where it failed."""
    summary: Mapping[str, JsonValue]
    """The content of `summary.json`; empty where there is none."""
    config: Mapping[str, JsonValue]
    """The content of `config.yaml`; empty where there is none."""
    steps: tuple[Step, ...]
    """The lines of `metrics.jsonl` in order, of each step the last; step 0 is the evaluation before training."""
    verdict: Verdict | None
    """Whether it worked; None where the run has not come to its end."""
    probe: Mapping[str, JsonValue] = field(default_factory=FrozenDict)
    """The content of `probe.json`; empty where no probe was made."""
    losses: Losses = field(default_factory=Losses)
    """What `ledger.jsonl` says of rows and completions."""
    log: tuple[LogLine, ...] = ()
    """The warnings and errors of `run.log`."""
    problems: tuple[str, ...] = ()
    """What could not be read, a sentence each."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "summary", "config", "probe")
        object.__setattr__(self, "steps", tuple(FrozenDict(step) for step in self.steps))

    @property
    def samples(self) -> Path:
        """Where its completions are: `samples.jsonl`, which may be missing, and whose last line may be cut off."""
        return self.run_dir / "samples.jsonl"

    @property
    def trained(self) -> int:
        """How many steps were trained so far."""
        counted = self.summary.get("steps")
        seen = int(max((step["step"] or 0 for step in self.steps), default=0))
        return max(counted if isinstance(counted, int) else 0, seen)

    @property
    def planned(self) -> int | None:
        """How many steps its plan has; None where that is not known, as of runs of earlier versions."""
        found = self.summary.get("planned_steps")
        return found if isinstance(found, int) else None

    def values(self, metric: str) -> list[tuple[int, float]]:
        """Step and value of each line that has a number for this metric."""
        found = ((step["step"], step.get(metric)) for step in self.steps)
        return [(int(at), value) for at, value in found if at is not None and value is not None]
