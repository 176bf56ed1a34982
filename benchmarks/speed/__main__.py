"""Whole steps, ours and TRL's, each in a process of its own.

python -m benchmarks.speed cpu
python -m benchmarks.speed main lora --steps 6 --only ours
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.shapes import SHAPES, Shape

SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "distillkit": ("ours", {}),
    "distillkit, plain": ("ours", {"forward": "plain", "compile": "off"}),
    "TRL": ("trl_side", {}),
    "TRL, static cache": ("trl_side", {"cache_implementation": "static"}),
}
PLAIN_SIDES = ("distillkit", "TRL")


def main() -> None:
    """Measure, and print a table a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", choices=sorted(SHAPES))
    parser.add_argument("--steps", type=int, default=5, help="the first is not counted")
    parser.add_argument("--sides", nargs="+", choices=sorted(SIDES), default=PLAIN_SIDES)
    parser.add_argument("--limit-s", type=float, default=1800, help="of one side; one that takes longer is given up")
    parser.add_argument("--folder", type=Path, help="where the models are written, and found the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.shapes:
            folder = (options.folder or Path(temporary)) / name
            table = Table(title=f"{name}: {SHAPES[name]}")
            for column in ("", "step s", "sample", "score", "train", "first step", "tokens/s", "memory GiB"):
                table.add_column(column, justify="right")
            for side in options.sides:
                table.add_row(
                    side, *_row(SHAPES[name], _in_a_process(name, side, options.steps, folder, options.limit_s))
                )
            Console(width=120).print(table)


def _in_a_process(shape: str, side: str, steps: int, folder: Path, limit: float) -> dict[str, Any]:
    module, options = SIDES[side]
    call = f"child({shape!r}, {module!r}, {steps}, {str(folder)!r}, {options!r})"
    code = f"from benchmarks.speed.__main__ import child; {call}"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=limit)
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


def _row(shape: Shape, measured: dict[str, Any]) -> list[str]:
    if "error" in measured:
        return [measured["error"][:60]] + [""] * 6
    steps = measured["steps"]
    middle = {name: statistics.median(step[name] for step in steps[1:]) for name in steps[-1]}
    seconds = [f"{middle[name]:.3f}" if name in middle else "-" for name in ("step", "sample", "score", "train")]
    memory = measured["memory_gib"]
    rate = shape.tokens / middle["step"]
    return [*seconds, f"{steps[0]['step']:.1f}", f"{rate:,.0f}", "-" if memory is None else f"{memory:.1f}"]


if __name__ == "__main__":
    main()
