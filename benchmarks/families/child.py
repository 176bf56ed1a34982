"""One part of one family, in a process of its own; each row is appended to a file when it is known."""

import argparse
import json
import shutil
from pathlib import Path

from benchmarks.families import exact, speed
from benchmarks.families.sizes import EXACT, SPEED, TINY_EXACT, TINY_SPEED, write_inputs


def main() -> None:
    """Write the inputs, if they are not there, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("part", choices=("exact", "speed"))
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    options = parser.parse_args()
    sizes = {"exact": (EXACT, TINY_EXACT), "speed": (SPEED, TINY_SPEED)}[options.part][options.tiny]
    options.folder.mkdir(parents=True, exist_ok=True)
    inputs = write_inputs(options.folder, options.family, sizes, tiny=options.tiny)
    work = options.folder / "work" / options.part
    float32 = {"device": options.device, "dtype": "float32"}
    fast = {"device": options.device, "dtype": "bfloat16" if options.device == "cuda" else "float32"}
    if options.part == "exact":
        on_cpu = [{"device": "cpu", "dtype": "float32"}]
        devices = [fast, float32, *on_cpu] if options.device == "cuda" else on_cpu
        rows = exact.measure(inputs, sizes, devices, work)
    else:
        rows = speed.measure(inputs, sizes, fast, work)
    for row in rows:
        with options.rows.open("a") as file:
            file.write(json.dumps({"family": options.family, "part": options.part, **row}) + "\n")
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
