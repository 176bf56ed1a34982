"""Families at small real shapes: exactness against the CPU, and speed beside transformers' generate.

python -m benchmarks.families --out families.json                      # on a GPU, all of it
python -m benchmarks.families --families qwen3_moe gpt_oss --parts speed --out speed.json
python -m benchmarks.families --tiny --device cpu --out tiny.json      # whether it works
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.families.models import FAMILIES
from benchmarks.families.tables import tables
from benchmarks.speed.machine import describe

ROOT = Path(__file__).parents[2]
EXACT_SHARE = 0.4
"""Of the time, where speed is measured too."""


def main() -> None:
    """Measure, and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--parts", nargs="+", choices=("exact", "speed"), default=("exact", "speed"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="models of a few numbers")
    parser.add_argument("--jobs", type=int, default=4, help="families whose exactness is measured at once")
    parser.add_argument("--limit-s", type=float, default=450, help="of all; what is not measured by then is left out")
    parser.add_argument("--folder", type=Path, help="where the models are written, and found the next time")
    parser.add_argument("--out", type=Path, help="a JSON file for all figures")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        rows: list[dict[str, Any]] = []
        for part in options.parts:
            share = EXACT_SHARE if part == "exact" and "speed" in options.parts else 1.0
            work = partial(_measure, part=part, options=options, folder=folder, end=begin + share * options.limit_s)
            # Speed is measured one family after another: they would slow each other down.
            with ThreadPoolExecutor(options.jobs if part == "exact" else 1) as pool:
                rows += [row for found in pool.map(work, options.families) for row in found]
    machine = f"{describe(options.device)}, torch {torch.__version__}"
    if options.out:
        options.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    print(tables(rows, machine))
    sys.exit(any("failed" in row for row in rows))


def _measure(family: str, *, part: str, options: argparse.Namespace, folder: Path, end: float) -> list[dict[str, Any]]:
    """The rows of one part, and how its process ended if not well."""
    left = options.families[options.families.index(family) :]
    limit = (end - time.monotonic()) / (1 if part == "exact" else len(left))
    place = folder / family
    place.mkdir(parents=True, exist_ok=True)
    found = place / f"{part}.jsonl"
    found.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.families.child", family, part, "--device", options.device]
    command += ["--folder", str(place), "--rows", str(found), *(["--tiny"] if options.tiny else [])]
    threads = max(1, (os.cpu_count() or 1) // (options.jobs if part == "exact" else 1))
    reason = _run(command, limit, threads)
    rows = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    print(f"{family}, {part}: {len(rows)} rows{'' if reason is None else ', ' + reason}", file=sys.stderr, flush=True)
    return rows if reason is None else [*rows, {"family": family, "part": part, "case": "", "failed": reason}]


def _run(command: list[str], limit: float, threads: int) -> str | None:
    """Why it failed, in a line."""
    if limit <= 0:
        return "no time was left"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": paths}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return f"over {limit:.0f} s"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return None if done.returncode == 0 else (said or [f"exit code {done.returncode}"])[-1]


if __name__ == "__main__":
    main()
