"""Whole steps, ours and TRL's, each in a process of its own.

python -m benchmarks.speed cpu cpu-bf16 --trl-python .venv-trl/bin/python
python -m benchmarks.speed main lora --steps 8 --sides distillkit
python -m benchmarks.speed main --steps 3 --sides TRL "TRL, static cache" "TRL, liger"
python -m benchmarks.speed main --steps 8 --sides distillkit "distillkit, full KL"
python -m benchmarks.speed main --steps 7 --sides distillkit "distillkit, sharded" --ranks 2
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.machine import describe, fast_in
from benchmarks.speed.shapes import SHAPES, Shape

SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "distillkit": ("ours", {}),
    "distillkit, plain": ("ours", {"forward": "plain", "compile": "never"}),
    "distillkit, sharded": ("ours", {"shard": "always"}),
    "distillkit, full KL": ("full_kl", {}),
    "distillkit, full KL, chunks of 1024": ("full_kl", {"loss_chunk_positions": 1024}),
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
    parser.add_argument("--ranks", type=int, default=1, help="processes, by torchrun; as many times the prompts")
    parser.add_argument("--trl-python", default=sys.executable, help="an interpreter that has TRL")
    parser.add_argument("--limit-s", type=float, default=1800, help="of one side; one that takes longer is given up")
    parser.add_argument("--folder", type=Path, help="where the models are written, and found the next time")
    options = parser.parse_args()
    if options.ranks > 1 and any(SIDES[side][0] == "trl_side" for side in options.sides):
        parser.error("--ranks is for distillkit's sides: name them by --sides")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.shapes:
            shape = replace(SHAPES[name], prompts=SHAPES[name].prompts * options.ranks)
            if not fast_in(shape.device, shape.dtype):
                print(f"{name} is left out: this machine is not fast in {shape.dtype}", file=sys.stderr)
                continue
            measured = _measure_sides(name, options, (options.folder or Path(temporary)) / name)
            title = name if options.ranks == 1 else f"{name}, {options.ranks} ranks"
            Console(width=140).print(_table(title, shape, measured))
            failed |= any("error" in result for result in measured.values())
    sys.exit(failed)


def _measure_sides(name: str, options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """By side."""
    measured = {}
    for side in options.sides:
        measured[side] = _in_processes(name, side, options, folder)
        print(f"{name}, {side}: {json.dumps(measured[side])}", file=sys.stderr, flush=True)
    return measured


def _in_processes(shape: str, side: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What one side measured; of several ranks, the first."""
    module, settings = SIDES[side]
    python = options.trl_python if module == "trl_side" else sys.executable
    arguments = [
        shape,
        module,
        json.dumps(settings),
        "--steps",
        options.steps,
        "--ranks",
        options.ranks,
        "--folder",
        folder,
    ]
    code = ["-m", "benchmarks.speed.child", *map(str, arguments)]
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [python, *code]
    if options.ranks > 1:
        if error := _run(command, options.limit_s):
            return {"error": error}
        command = [python, "-m", "torch.distributed.run", "--nproc-per-node", str(options.ranks), *code]
    error = _run([*command, "--result", str(result)], options.limit_s)
    shutil.rmtree(folder / "work", ignore_errors=True)
    return {"error": error or "no result"} if error or not result.exists() else json.loads(result.read_text())


def _run(command: list[str], limit: float) -> str | None:
    """The last thing that was said, if it failed."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,  # torchrun's processes end with it
    )
    try:
        _, output = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"over {limit:.0f} s"
    errors = [line for line in output.splitlines() if "Error" in line]
    return None if process.returncode == 0 else (errors or [f"exit code {process.returncode}"])[-1]


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
