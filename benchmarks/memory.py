"""What `distillkit check` reckons of a GPU's memory, beside what PyTorch's allocator held at the peak of the run.

    python -m benchmarks.memory                 # all cases, some minutes on one H200
    python -m benchmarks.memory lora full
    python -m benchmarks.memory 8b 8b-adapter   # of a student that is taught by its own base

Models have random weights and are made from configs; nothing is downloaded. Each case is two steps in a process of its
own, and its peak is `torch.cuda.max_memory_allocated`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.ours import config_of
from benchmarks.speed.shapes import QWEN3_600M, SHAPES, ModelShape, Shape

STEPS = 2
GIB = 2**30
QWEN3_8B = ModelShape(4096, 12288, 36, 32, 8, 128, 151_936)
A_THIRD_OF_8B = replace(QWEN3_8B, layers=12)


@dataclass(frozen=True)
class Case:
    """A shape, and options of the student."""

    shape: Shape
    options: Mapping[str, Any] = field(default_factory=dict)
    own_base: bool = False
    """The teacher is the student's base; else a model of its own."""


LORA = SHAPES["lora"]
OF_8B = replace(LORA, student=QWEN3_8B, teacher=QWEN3_600M, prompt_tokens=256, new_tokens=512)
CASES = {
    "lora": Case(LORA),
    "full": Case(SHAPES["main"]),
    "wide": Case(replace(LORA, prompts=32, completions=8)),
    "deep": Case(replace(LORA, student=A_THIRD_OF_8B, teacher=QWEN3_600M, prompt_tokens=256, new_tokens=512)),
    "8b": Case(OF_8B, own_base=True),
    "8b-adapter": Case(OF_8B, {"sampling_weights": "adapter"}, own_base=True),
    "checkpointed": Case(SHAPES["main"], {"gradient_checkpointing": True}),
    "plain": Case(replace(LORA, new_tokens=64), {"forward": "plain", "micro_batch_tokens": 4096}),
}
"""By the name under which a case is chosen."""


def main() -> None:
    """Measure the cases, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="which; all where none is named")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(CASES[arguments.child], arguments.folder)))
        return
    print(f"{'case':<14}{'reckoned':>12}{'measured':>12}{'ratio':>8}{'took':>8}   reckoned of what, GiB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.cases or CASES:
            report(name, folder)


def report(name: str, folder: str) -> None:
    """Run one case in a process of its own, and print its line."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.memory", "--child", name, "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name:<14}failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}", flush=True)
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    reckoned, measured = found["reckoned"] / GIB, found["measured"] / GIB
    parts = ", ".join(f"{part} {size / GIB:.1f}" for part, size in found["parts"].items())
    took = time.perf_counter() - began
    print(f"{name:<14}{reckoned:>12.1f}{measured:>12.1f}{reckoned / measured:>8.2f}{took:>7.0f}s   {parts}", flush=True)


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Bytes reckoned, by part too, and bytes that were held at the peak."""
    import torch

    import distillkit
    from distillkit.preflight.prepared_run import prepare_run

    shape = case.shape
    kind = f"{shape.student.hidden}-{shape.student.layers}-{shape.teacher.hidden}"
    (folder / kind).mkdir(exist_ok=True)
    inputs = write_inputs(folder / kind, shape, STEPS)
    if case.own_base:
        inputs["teacher"] = inputs["student"]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    config = config_of(inputs, shape, STEPS, dict(case.options), folder / "runs")
    fits = prepare_run(config, distillkit.Registry.discover(), print).memory.fits
    (fit,) = [fit for fit in fits if fit.memory.device.startswith("cuda")]
    parts = {"weights": fit.held("weights"), "caches": fit.held("caches")}
    parts |= {use.what: use.size_bytes for use in fit.phase_uses}
    distillkit.run(config, overwrite=True)
    return {"reckoned": fit.peak, "measured": torch.cuda.max_memory_allocated(), "parts": parts}


if __name__ == "__main__":
    main()
