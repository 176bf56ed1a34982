"""Reads a run's directory into a `RunRecord`: a run that goes on, that was killed, or whose files are damaged, too."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import yaml
from pydantic import JsonValue

from distillkit.config.parse import parse_yaml
from distillkit.files.jsonl import read_json_lines, require_regular
from distillkit.probe.report import FILE as PROBE
from distillkit.report.lost_completions import Losses, read_losses
from distillkit.report.run_log import LogLine, read_log
from distillkit.report.run_record import RunRecord, Status, Step
from distillkit.run_directory.codec import from_json
from distillkit.run_directory.directory import MARKER
from distillkit.run_directory.run_lock import is_held_elsewhere
from distillkit.run_directory.saved_run import require_run
from distillkit.verdict.verdict_sentences import Verdict

T = TypeVar("T")
LARGEST = sys.float_info.max
UNREADABLE = (OSError, ValueError, RecursionError, yaml.YAMLError)


@dataclass(slots=True)
class _Reader:
    """Reads files of one run, and notes what it cannot read."""

    run_dir: Path
    problems: list[str] = field(default_factory=list)

    def read(self, name: str, reader: Callable[[Path], T], otherwise: T, missing: str = "") -> T:
        """What `reader` makes of a file; `otherwise` where it cannot, which is noted (`missing`: if it is missing)."""
        path = self.run_dir / name
        try:
            require_regular(path)
            return reader(path)
        except FileNotFoundError:
            if missing:
                self.problems.append(f"{name} is missing: {missing}.")
        except UNREADABLE as error:
            why = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
            self.problems.append(f"{name} cannot be read ({why}), and is left out.")
        return otherwise


def read_run(run_dir: Path) -> RunRecord:
    """The run in a directory. Raises InputError if no run is there."""
    require_run(run_dir)
    reader = _Reader(run_dir)
    empty: dict[str, JsonValue] = {}
    silent: tuple[LogLine, ...] = ()
    summary = reader.read("summary.json", _json_object, empty, missing="the run did not come to its first step")
    config = reader.read(MARKER, _config, empty, missing="settings are not known")
    steps = reader.read("metrics.jsonl", _steps, _Steps(), missing="no step was trained yet")
    losses = reader.read("ledger.jsonl", read_losses, Losses())
    log = reader.read("run.log", read_log, silent, missing="warnings are not known")
    probe = reader.read(PROBE, _json_object, empty)
    for name, damaged in (("metrics.jsonl", steps.damaged), ("ledger.jsonl", losses.damaged)):
        if damaged:
            lines = "A line" if damaged == 1 else f"{damaged} lines"
            reader.problems.append(f"{lines} of {name} cannot be read (cut off, or damaged), and left out.")
    status = _status(summary, going_on=is_held_elsewhere(run_dir))
    called, error = summary.get("name") or config.get("name") or run_dir.name, summary.get("error")
    return RunRecord(
        run_dir,
        str(called),
        status,
        str(error) if error else None,
        summary,
        config,
        tuple(steps.by_step[step] for step in sorted(steps.by_step)),
        _verdict(summary, reader.problems),
        probe,
        losses,
        log,
        tuple(reader.problems),
    )


def _status(summary: Mapping[str, JsonValue], *, going_on: bool) -> Status:
    """As the summary has it, but for a process that died, and for one that has just begun anew."""
    if going_on:
        return "running"
    said = summary.get("status")
    if said == "running":
        return "stopped"
    return cast(Status, said) if said in get_args(Status) else "unknown"


@dataclass(slots=True)
class _Steps:
    by_step: dict[int, Step] = field(default_factory=dict)
    damaged: int = 0


def _steps(path: Path) -> _Steps:
    """Each step's last line. What is no number, which only another program wrote there, is left out."""
    found = _Steps()
    for row in read_json_lines(path):
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(step, int):
            found.damaged += 1
            continue
        found.by_step[step] = {name: _number(value) for name, value in row.items() if _is_number(value)}
    return found


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and abs(value) < LARGEST)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _json_object(path: Path) -> dict[str, JsonValue]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def _config(path: Path) -> dict[str, JsonValue]:
    found = parse_yaml(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("it holds no settings")
    return cast(dict[str, JsonValue], json.loads(json.dumps(found, default=str)))


def _verdict(summary: Mapping[str, Any], problems: list[str]) -> Verdict | None:
    found = summary.get("verdict")
    if not isinstance(found, dict):
        return None
    try:
        return from_json(Verdict, found)
    except (KeyError, TypeError, ValueError, AttributeError):
        version = (summary.get("provenance") or {}).get("versions", {}).get("distillkit", "another version")
        problems.append(f"The verdict in summary.json is not as this version writes it (it is of {version}).")
        return None
