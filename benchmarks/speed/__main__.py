"""Whole steps, ours and TRL's, each in a process of its own.

python -m benchmarks.speed cpu cpu-bf16 --trl-python .venv-trl/bin/python
python -m benchmarks.speed main lora --steps 6 --sides distillkit
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.machine import describe, fast_in
from benchmarks.speed.shapes import SHAPES, Shape

SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "distillkit": ("ours", {}),
    "distillkit, plain": ("ours", {"forward": "plain", "compile": "never"}),
    "TRL": ("trl_side", {}),
    "TRL, static cache": ("trl_side", {"cache_implementation": "static"}),
    "TRL, liger": ("trl_side", {"use_liger_kernel": True}),
}
PLAIN_SIDES = ("distillkit", "TRL")
COLUMNS = ("", "step s", "sample", "score", "train", "first step", "completions/s", "tokens/s", "x TRL", "memory GiB")
ROOT = Path(__file__).parents[2]


def main() -> None:
    """Measure, and print a table a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", choices=sorted(SHAPES))
    parser.add_argument("--steps", type=int, default=5, help="the first is not counted")
    parser.add_argument("--sides", nargs="+", choices=sorted(SIDES), default=PLAIN_SIDES)
    parser.add_argument("--trl-python", default=sys.executable, help="an interpreter that has TRL")
    parser.add_argument("--limit-s", type=float, default=1800, help="of one side; one that takes longer is given up")
    parser.add_argument("--folder", type=Path, help="where the models are written, and found the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.shapes:
            shape = SHAPES[name]
            if not fast_in(shape.device, shape.dtype):
                print(f"{name} is left out: this machine is not fast in {shape.dtype}", file=sys.stderr)
                continue
            measured = _measure_sides(name, options, (options.folder or Path(temporary)) / name)
            Console(width=140).print(_table(name, shape, measured))


def _measure_sides(name: str, options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """By side."""
    measured = {}
    for side in options.sides:
        python = options.trl_python if SIDES[side][0] == "trl_side" else sys.executable
        measured[side] = _in_a_process(python, name, side, options.steps, folder, options.limit_s)
    return measured


def _in_a_process(python: str, shape: str, side: str, steps: int, folder: Path, limit: float) -> dict[str, Any]:
    module, options = SIDES[side]
    call = f"child({shape!r}, {module!r}, {steps}, {str(folder)!r}, {options!r})"
    code = f"from benchmarks.speed.__main__ import child; {call}"
    try:
        done = subprocess.run(
            [python, "-c", code],
            capture_output=True,
            text=True,
            timeout=limit,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"over {limit:.0f} s"}
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "killed"}
    line = done.stdout.splitlines()[-1]
    print(f"{shape}, {side}: {line}", file=sys.stderr, flush=True)
    return json.loads(line)


def child(shape: str, module: str, steps: int, folder: str, options: dict[str, Any]) -> None:
    """What `_in_a_process` runs: prints one line of JSON last."""
    inputs = write_inputs(Path(folder), SHAPES[shape], steps)
    measured = importlib.import_module(f"benchmarks.speed.{module}").measure(inputs, SHAPES[shape], steps, options)
    print(json.dumps(measured))


def _table(name: str, shape: Shape, measured: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=f"{name}: {shape}, {shape.dtype}, {describe(shape.device)}, torch {torch.__version__}")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    theirs = measured.get("TRL", {"error": ""})
    for side, result in measured.items():
        table.add_row(side, *_row(shape, result, None if "error" in theirs else _median(theirs, "step")))
    return table


def _median(measured: dict[str, Any], phase: str) -> float:
    """Seconds of all steps but the first."""
    return statistics.median(step[phase] for step in measured["steps"][1:])


def _row(shape: Shape, measured: dict[str, Any], theirs: float | None) -> list[str]:
    if "error" in measured:
        return [measured["error"][:60]] + [""] * (len(COLUMNS) - 2)
    phases, step = measured["steps"][-1], _median(measured, "step")
    seconds = [f"{_median(measured, name):.3f}" if name in phases else "-" for name in ("sample", "score", "train")]
    memory = measured["memory_gib"]
    return [
        f"{step:.3f}",
        *seconds,
        f"{measured['steps'][0]['step']:.1f}",
        f"{shape.sequences / step:.2f}",
        f"{shape.tokens / step:,.0f}",
        "-" if theirs is None else f"{theirs / step:.2f}",
        "-" if memory is None else f"{memory:.1f}",
    ]


if __name__ == "__main__":
    main()
