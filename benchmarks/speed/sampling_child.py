"""One side of sampling alone, in a process of its own; what it measured goes into a file."""

import argparse
import importlib
import json
from pathlib import Path

from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.sampling_sizes import SamplingSize
from benchmarks.speed.shapes import SHAPES


def main() -> None:
    """Write the model, if it is not there, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("side", help="a module of benchmarks.speed")
    parser.add_argument("options", type=json.loads)
    parser.add_argument("sizes", nargs="+", type=SamplingSize.parse)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    inputs = write_inputs(arguments.folder, shape, 1)
    module = importlib.import_module(f"benchmarks.speed.{arguments.side}")
    measured = module.measure(inputs, shape, arguments.sizes, arguments.repeats, arguments.options)
    arguments.result.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
