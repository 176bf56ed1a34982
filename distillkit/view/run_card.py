"""What the list of runs says of one: state, steps, verdict, and a curve; read again only where a file has changed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from distillkit.files.jsonl import require_regular
from distillkit.run_directory.codec import from_json
from distillkit.run_directory.run_lock import is_held_elsewhere
from distillkit.verdict.short_verdict import short_verdict
from distillkit.verdict.verdict_sentences import Verdict
from distillkit.view.found_runs import signature

METRIC = "train/reverse_kl"
"""What the small curves show."""
POINTS = 60
"""Of a small curve."""
GOING_ON = "running"


@dataclass(slots=True)
class MetricsTail:
    """A growing `metrics.jsonl`: each call reads what has come since the last."""

    path: Path
    values: dict[int, float] = field(default_factory=dict)
    """Step to the metric."""
    step: int = 0
    _read: int = 0

    def update(self) -> None:
        """Read on; from the start where the file is shorter than it was, as behind a resume."""
        try:
            require_regular(self.path)
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._read:
                    self.values, self.step, self._read = {}, 0, 0
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is being written
                    self._read += len(line)
                    self._add(line)
        except OSError:
            return

    def _add(self, line: bytes) -> None:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(step, int):
            return
        self.step = max(self.step, step)
        value = row.get(METRIC)
        if isinstance(value, int | float):
            self.values[step] = float(value)


@dataclass(slots=True)
class RunCard:
    """One run of the list."""

    key: str
    run: Path
    folder: Path
    tail: MetricsTail = field(init=False)
    _signature: object = None
    _summary: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing is read yet."""
        self.tail = MetricsTail(self.run / "metrics.jsonl")

    def told(self) -> dict[str, JsonValue]:
        """What the page shows, as it is now."""
        now = signature(self.run)
        if now != self._signature:
            self._signature = now
            self._summary = _summary(self.run / "summary.json")
            self.tail.update()
        path = str(self.run.relative_to(self.folder))
        return {
            "key": self.key,
            "name": str(self._summary.get("name") or self.run.name),
            "path": self.run.name if path == "." else path,
            "status": self._status(),
            "step": self.tail.step,
            "verdict": _outcome(self._summary),
            "changed": max(time for _, time in now) / 1e9,
            "curve": [[step, value] for step, value in _thinned(self.tail.values)],
        }

    def _status(self) -> str:
        if is_held_elsewhere(self.run):
            return GOING_ON
        said = self._summary.get("status")
        return "stopped" if said == GOING_ON else str(said or "unknown")


def _summary(path: Path) -> Mapping[str, JsonValue]:
    """The summary; empty where it is missing, damaged or just being replaced."""
    try:
        require_regular(path)
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _outcome(summary: Mapping[str, Any]) -> str:
    """What ended a run that failed, or the verdict's first sentence; empty where there is none of this version."""
    if summary.get("status") == "failed" and summary.get("error"):
        return str(summary["error"]).partition("\n")[0]
    try:
        return short_verdict(from_json(Verdict, summary["verdict"]))[0]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return ""


def _thinned(values: Mapping[int, float]) -> list[tuple[int, float]]:
    found = sorted(values.items())
    if len(found) <= POINTS:
        return found
    return [found[at * (len(found) - 1) // (POINTS - 1)] for at in range(POINTS)]
