"""Where the time of sampling, scoring and training goes on a GPU: each kernel's, and how long the device waits.

python -m benchmarks.speed.kernels main lora
python -m benchmarks.speed.kernels 8b --parts scoring training --shown 30

Each part by itself, as `benchmarks.speed.parts` has it: once timed, once more under PyTorch's profiler.
"""

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.machine import best
from benchmarks.speed.markdown import heading, table
from benchmarks.speed.parts import Part, parts
from benchmarks.speed.shapes import SHAPES

PARTS = ("sampling", "scoring", "training")
KINDS = (
    ("attention", ("flash", "sdpa", "_attend", "_combine", "fmha")),
    ("products", ("nvjet", "gemm", "cutlass", "_product", "cublas", "splitk")),
    ("copies", ("memcpy", "memset", "copy", "index", "gather", "scatter", "cat")),
    ("norms, activations, softmax", ("triton_",)),
)
"""The first whose words are in a kernel's name, in small letters. The compiler makes all that is between products."""
OTHER = "other"


class Span(Protocol):
    """From when to when, in microseconds."""

    start: float
    end: float


class Kernel(Protocol):
    """One that ran, as PyTorch's profiler tells it."""

    name: str
    time_range: Span


@dataclass(frozen=True)
class Profile:
    """What the device did in one call of a part."""

    seconds: float
    """That the call took without the profiler."""
    by_kernel: dict[str, tuple[int, float]]
    """How often each ran, and its microseconds in all."""

    @classmethod
    def of(cls, seconds: float, kernels: Iterable[Kernel]) -> "Profile":
        """Of all kernels of the call."""
        times: dict[str, float] = defaultdict(float)
        counts: Counter[str] = Counter()
        for kernel in kernels:
            times[kernel.name] += kernel.time_range.end - kernel.time_range.start
            counts[kernel.name] += 1
        return cls(seconds, {name: (counts[name], time) for name, time in times.items()})

    @property
    def busy(self) -> float:
        """Seconds in which the device computed: it runs one kernel after the other here."""
        return sum(time for _, time in self.by_kernel.values()) / 1e6

    def by_kind(self) -> dict[str, tuple[int, float]]:
        """As `by_kernel`, of each kind of kernel; the longest first."""
        found: dict[str, tuple[int, float]] = {}
        for name, (count, time) in self.by_kernel.items():
            before = found.get(kind_of(name), (0, 0.0))
            found[kind_of(name)] = before[0] + count, before[1] + time
        return dict(sorted(found.items(), key=lambda each: -each[1][1]))


def kind_of(name: str) -> str:
    """Which of `KINDS` a kernel is."""
    small = name.lower()
    if small.startswith("triton_"):
        return KINDS[-1][0]
    return next((kind for kind, words in KINDS if any(word in small for word in words)), OTHER)


def lines(part: Part, found: Profile, shown: int) -> Iterator[str]:
    """A heading, and the kinds and the longest kernels of a part as a table."""
    count = sum(each for each, _ in found.by_kernel.values())
    yield f"\n{part.what}: {found.seconds:.3f} s, the device computes {found.busy:.3f} s of it in {count:,} kernels\n"
    longest = sorted(found.by_kernel.items(), key=lambda each: -each[1][1])[:shown]
    kinds = [(f"**{kind}**", each) for kind, each in found.by_kind().items()]
    kernels = [(name[:100], each) for name, each in longest]
    rows = [_row(name, each, found.seconds) for name, each in (*kinds, *kernels)]
    yield from table(["", "ms", "of the call", "kernels", "us each"], rows)


def _row(name: str, each: tuple[int, float], seconds: float) -> Sequence[str]:
    count, time = each
    return [name, f"{time / 1e3:.2f}", f"{time / 1e6 / seconds:.1%}", f"{count:,}", f"{time / count:.1f}"]


def profiled(part: Part, device: str, repeats: int) -> Profile:
    """One call of the part, after it was timed."""
    seconds = best(part.work, device, repeats)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        part.work()
        torch.cuda.synchronize()
    on_device = (event for event in profiler.events() or () if event.device_type == torch.autograd.DeviceType.CUDA)
    return Profile.of(seconds, on_device)


def main() -> None:
    """Measure, and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_cuda = sorted(name for name, shape in SHAPES.items() if shape.device == "cuda")
    parser.add_argument("shapes", nargs="+", choices=on_cuda)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=2, help="the best counts; one more comes before")
    parser.add_argument("--shown", type=int, default=12, help="kernels of each part, the longest first")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this needs a GPU")
    print(heading("cuda", ("torch", "transformers", "triton")))
    for name in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            inputs = write_inputs(Path(folder), SHAPES[name], 1)
            print(f"\n{name}: {SHAPES[name]}")
            for part in parts(inputs, SHAPES[name]):
                if part.what.startswith(tuple(options.parts)):
                    found = profiled(part, "cuda", options.repeats)
                    print(*lines(part, found, options.shown), sep="\n", flush=True)
                del part  # and its model, before the next one's is loaded


if __name__ == "__main__":
    main()
