"""One side, in a process of its own or in several of torchrun's; what it measured goes into a file."""

import argparse
import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.shapes import SHAPES


def main() -> None:
    """Write the inputs, if they are not there, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("side", help="a module of benchmarks.speed")
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--result", type=Path, help="left out: the inputs are written, and nothing is measured")
    told = parser.parse_args()
    shape = replace(SHAPES[told.shape], prompts=SHAPES[told.shape].prompts * told.ranks)
    first = os.environ.get("RANK", "0") == "0"
    inputs = write_inputs(told.folder, shape, told.steps, anew=told.ranks == 1 or told.result is None)
    if told.result is None:
        return
    module = importlib.import_module(f"benchmarks.speed.{told.side}")
    measured = module.measure(inputs, shape, told.steps, told.options, told.folder / "work")
    if first:
        told.result.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
