"""`checkpoints/step-N/`: the student's own files, every plugin's state, and where the engine stands.

A checkpoint is written aside, flushed to the disk, summed up in `checksums.json` and renamed: one that has its final
name is whole, and one that was damaged later is found out. Weights are safetensors, everything else is JSON.
"""

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from distillkit.errors import InputError
from distillkit.events import PolicyFigures
from distillkit.files.atomic import checksums, flush
from distillkit.files.jsonl import explain_write_errors
from distillkit.files.permissions import apply_umask
from distillkit.roles.attribution import attribute_to
from distillkit.roles.plugin import Plugin
from distillkit.roles.student import Student
from distillkit.run_directory.codec import from_json, to_json
from distillkit.run_directory.plugin_states import PluginStates, tensors_of
from distillkit.run_directory.rollout_codec import InFlight

FORMAT = 6
CHECKSUMS = "checksums.json"


@dataclass(frozen=True, slots=True, eq=False)
class EngineState:
    """The engine's own state after a step, as a checkpoint holds it."""

    step: int
    totals: Mapping[str, JsonValue]
    train_seconds: float
    before: PolicyFigures | None
    """The evaluation before training: what later ones are compared with, row by row."""
    bad_in_a_row: int
    """Refused optimizer steps since the last good one."""
    metrics: Mapping[str, float | None]
    """The step's line of `metrics.jsonl`, which is written after the checkpoint."""
    files: Mapping[str, int]
    """How long, in bytes, the run's growing files were."""
    in_flight: Sequence[InFlight]
    """The windows that are sampled and scored, in order: with k steps off policy up to k."""
    identity: Mapping[str, JsonValue]
    """The run's identity, as `identity_of` gives it."""
    today: str
    """What chat templates take for today, as `2026-11-29`."""
    followed_up: bool = True
    """Whether the evaluation, and what else follows the step, was made. False: a resume begins with that."""


def checkpoints(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, the oldest first."""
    found = [path for path in (run_dir / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


async def save(
    run_dir: Path,
    state: EngineState,
    student: Student,
    plugins: Mapping[str, Plugin],
    states: PluginStates,
    keep_last: int,
) -> Path:
    """Write a checkpoint aside and rename it, so that what has its final name is whole; keep the `keep_last` newest."""
    final = run_dir / "checkpoints" / f"step-{state.step}"
    aside = final.with_name(f".{final.name}.partial")
    with explain_write_errors(final):
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "student").mkdir(parents=True)
    with attribute_to(student, "in save()"):  # whose errors are its own: it may write elsewhere
        await student.save(aside / "student")
    tensors = tensors_of(plugins)
    with explain_write_errors(final):
        _write_json(aside / "plugins.json", {key: dict(value) for key, value in states.items()})
        if tensors:
            save_file(tensors, aside / "plugins.safetensors")
        _write_json(aside / "engine.json", {"format": FORMAT, **to_json(state)})
        await asyncio.to_thread(_seal, aside, final)
        for old in checkpoints(run_dir)[:-keep_last]:
            await asyncio.to_thread(_remove, old)
    return final


def _remove(checkpoint: Path) -> None:
    """At once for who looks for it: what has its final name is whole."""
    aside = checkpoint.with_name(f".{checkpoint.name}.old")
    checkpoint.rename(aside)
    shutil.rmtree(aside)


def _seal(aside: Path, final: Path) -> None:
    """Sum up, flush and rename; hashing gigabytes takes its time, so not in the event loop's thread.

    The disk writes while the sums are made, so the last flush finds little left to do.
    """
    apply_umask(aside)
    with ThreadPoolExecutor(1) as pool:
        flushed = pool.submit(_flush, aside)
        sums = checksums(aside, CHECKSUMS)
        flushed.result()
    _write_json(aside / CHECKSUMS, {**sums})
    _flush(aside)
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    flush(final.parent)


def forget_after(run_dir: Path, step: int) -> None:
    """Remove checkpoints of later steps, which are damaged or will be written again, and what is half-written."""
    for path in checkpoints(run_dir):
        if step_of(path) > step:
            shutil.rmtree(path)
    for path in (run_dir / "checkpoints").glob(".step-*"):
        shutil.rmtree(path)


def newest(run_dir: Path, warn: Callable[[str], None]) -> tuple[Path, EngineState]:
    """The newest whole checkpoint, and where the engine stood; `warn` hears of each that is damaged.

    Raises:
        InputError: if none is whole.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(run_dir)):
        problem = damage(path)
        if problem is None:
            return path, read_state(path)
        if not path.exists():  # the run goes on, and removed it while it was read; the newest is another now
            return newest(run_dir, warn)
        damaged.append(f"{path} is damaged: {problem}")
        warn(f"{damaged[-1]}; the one before it is used")
    raise InputError("\n".join([f"{run_dir}: no checkpoint is whole; run again with --overwrite", *damaged]))


def require_kept(run_dir: Path, step: int) -> Path:
    """The checkpoint of a step. Raises InputError, with those that are there, if it is not kept."""
    kept = [step_of(found) for found in checkpoints(run_dir)]
    if step not in kept:
        raise InputError(
            f"{run_dir} keeps no checkpoint of step {step}; there are those of {_steps(kept)} "
            "(train.save_every and save_every_minutes say how often one is written, train.keep_last how many are kept)"
        )
    return run_dir / "checkpoints" / f"step-{step}"


def of_step(run_dir: Path, step: int) -> tuple[Path, EngineState]:
    """The checkpoint of one step, and where the engine stood. Raises InputError if it is not kept, or damaged."""
    path = require_kept(run_dir, step)
    problem = damage(path)
    if problem is not None:
        require_kept(run_dir, step)  # a run that goes on may just have removed it
        others = [found for found in map(step_of, checkpoints(run_dir)) if found != step]
        raise InputError(f"{path} is damaged: {problem}; there are also those of {_steps(others)}")
    return path, read_state(path)


def _steps(steps: Sequence[int]) -> str:
    """`step 20`, `steps 10 and 20`, or `no step`."""
    if not steps:
        return "no step"
    *most, last = map(str, steps)
    return f"steps {', '.join(most)} and {last}" if most else f"step {last}"


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        wanted = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        found = checksums(path, CHECKSUMS)
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"
    if not isinstance(wanted, dict) or "engine.json" not in wanted:
        return f"{CHECKSUMS} is not what was written"
    missing = sorted(wanted.keys() - found.keys())
    changed = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    if missing:
        return f"{missing[0]} is missing"
    return f"{changed[0]} is not what was written" if changed else None


def read_state(path: Path) -> EngineState:
    """Where the engine stood. Raises InputError for a checkpoint of another format."""
    engine = json.loads((path / "engine.json").read_text(encoding="utf-8"))
    if engine.get("format") != FORMAT:
        raise InputError(f"{path}: has checkpoint format {engine.get('format')}, this version reads {FORMAT}")
    del engine["format"]
    return from_json(EngineState, engine)


def day_of(path: Path) -> date | None:
    """The day that chat templates took for today; None of a checkpoint that cannot be read, which `damage` explains."""
    try:
        return date.fromisoformat(json.loads((path / "engine.json").read_text(encoding="utf-8"))["today"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def load(path: Path, student: Student, plugins: Mapping[str, Plugin]) -> None:
    """Give student and plugins back what they saved. Raises InputError if the student's files do not fit it."""
    try:
        await student.load(path / "student")
    except (KeyError, SafetensorError) as error:
        raise InputError(f"{path}: these weights do not fit the student as it is configured now: {error}") from error
    states = json.loads((path / "plugins.json").read_text(encoding="utf-8"))
    tensors = load_file(path / "plugins.safetensors") if (path / "plugins.safetensors").is_file() else {}
    for key, plugin in plugins.items():
        mine = {name.removeprefix(f"{key}/"): array for name, array in tensors.items() if name.startswith(f"{key}/")}
        if key in states or mine:
            with attribute_to(plugin, "in restore()"):
                plugin.restore(states.get(key, {}), mine)


def _flush(folder: Path) -> None:
    """To the disk, so that a rename never names what is not there after a power failure."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def _write_json(path: Path, value: Mapping[str, JsonValue]) -> None:
    """Without indents, with which Python writes a hundred thousand numbers in flight one by one, and not in C."""
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")
