"""`checkpoints/step-N/`: the student's own files, every plugin's state, and where the engine stands."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from safetensors.numpy import load_file, save_file

from distillkit.errors import InputError
from distillkit.roles import Plugin, Student

FORMAT = 1


@dataclass(frozen=True, slots=True)
class EngineState:
    """Where the engine stands after a step."""

    step: int
    totals: Mapping[str, JsonValue]
    train_seconds: float
    before: Mapping[str, JsonValue] | None
    """The evaluation before training, as in `summary.json`."""

    def as_json(self) -> dict[str, JsonValue]:
        """What `engine.json` holds."""
        return {
            "format": FORMAT,
            "step": self.step,
            "totals": dict(self.totals),
            "train_seconds": self.train_seconds,
            "before": None if self.before is None else dict(self.before),
        }


def checkpoints(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, the oldest first."""
    found = [path for path in (run_dir / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


async def save(
    run_dir: Path, state: EngineState, student: Student, plugins: Mapping[str, Plugin], keep_last: int
) -> Path:
    """Write a checkpoint aside and rename it, so that what has its final name is complete; prune old ones."""
    final = run_dir / "checkpoints" / f"step-{state.step}"
    aside = final.with_name(f".{final.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "student").mkdir(parents=True)
    await student.save(aside / "student")
    states = {key: dict(plugin.state()) for key, plugin in plugins.items()}
    tensors = {f"{key}/{name}": array for key, plugin in plugins.items() for name, array in plugin.tensors().items()}
    _write_json(aside / "plugins.json", {key: value for key, value in states.items() if value})
    if tensors:
        save_file(tensors, aside / "plugins.safetensors")
    _write_json(aside / "engine.json", state.as_json())
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    for old in checkpoints(run_dir)[:-keep_last]:
        shutil.rmtree(old)
    return final


async def load(path: Path, student: Student, plugins: Mapping[str, Plugin]) -> EngineState:
    """Give everything back to where it was. Raises InputError for a checkpoint of another format."""
    engine = json.loads((path / "engine.json").read_text(encoding="utf-8"))
    if engine.get("format") != FORMAT:
        raise InputError(f"{path}: has checkpoint format {engine.get('format')}, this version reads {FORMAT}")
    await student.load(path / "student")
    states = json.loads((path / "plugins.json").read_text(encoding="utf-8"))
    tensors = load_file(path / "plugins.safetensors") if (path / "plugins.safetensors").is_file() else {}
    for key, plugin in plugins.items():
        mine = {name.removeprefix(f"{key}/"): array for name, array in tensors.items() if name.startswith(f"{key}/")}
        if key in states or mine:
            plugin.restore(states.get(key, {}), mine)
    return EngineState(engine["step"], engine["totals"], engine["train_seconds"], engine["before"])


def _write_json(path: Path, value: Mapping[str, JsonValue]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
