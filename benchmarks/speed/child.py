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
    arguments = parser.parse_args()
    shape = replace(SHAPES[arguments.shape], prompts=SHAPES[arguments.shape].prompts * arguments.ranks)
    first = os.environ.get("RANK", "0") == "0"
    inputs = write_inputs(
        arguments.folder, shape, arguments.steps, anew=arguments.ranks == 1 or arguments.result is None
    )
    if arguments.result is None:
        return
    module = importlib.import_module(f"benchmarks.speed.{arguments.side}")
    measured = module.measure(inputs, shape, arguments.steps, arguments.options, arguments.folder / "work")
    if first:
        arguments.result.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
