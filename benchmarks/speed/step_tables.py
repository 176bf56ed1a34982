"""What whole steps took, as a table a shape: seconds, shares of the measured peak, memory, the ratio to each peer."""

import statistics
from collections.abc import Iterator, Mapping

from benchmarks.speed.markdown import table
from benchmarks.speed.processes import Measured
from benchmarks.speed.shapes import Shape

COLUMNS = (
    "", "step s", "sample", "score", "train", "of the peak: score, train", "first step", "completions/s",
    "a step of distillkit is", "device holds GiB", "PyTorch's GiB", "CPU s",
)  # fmt: skip
OURS = "distillkit"
PHASES = ("sample", "score", "train")


def median(measured: Measured, phase: str) -> float:
    """Seconds of all steps but the first."""
    return statistics.median(step[phase] for step in measured["steps"][1:])


def fastest(found: Mapping[str, Measured]) -> str:
    """Of a side's settings, that with the fastest step; where all failed, the first."""
    worked = [name for name, measured in found.items() if "error" not in measured]
    return min(worked, key=lambda name: median(found[name], "step")) if worked else next(iter(found))


def table_lines(title: str, shape: Shape, measured: Mapping[str, Mapping[str, Measured]]) -> Iterator[str]:
    """In Markdown; by side what each of its settings measured, of which the fastest is shown."""
    chosen = {side: found[fastest(found)] for side, found in measured.items()}
    ours = chosen.get(OURS, {"error": ""})
    step = None if "error" in ours else median(ours, "step")
    adapter = f"LoRA of rank {shape.lora_rank}" if shape.lora_rank else "all weights"
    yield f"{title}: {shape}, {adapter}, {shape.dtype}\n"
    yield from table(COLUMNS, [[side, *_row(shape, found, step)] for side, found in chosen.items()])
    yield ""
    for side, found in measured.items():
        yield from _remarks(side, found, shape)
    yield ""


def _row(shape: Shape, measured: Measured, ours: float | None) -> list[str]:
    if "error" in measured:
        return [measured["error"][:100]] + [""] * (len(COLUMNS) - 2)
    phases, step = measured["steps"][-1], median(measured, "step")
    seconds = [f"{median(measured, name):.3f}" if name in phases else "-" for name in PHASES]
    return [
        f"{step:.3f}",
        *seconds,
        _shares(shape, measured),
        f"{measured['steps'][0]['step']:.1f}",
        f"{shape.sequences / step:.2f}",
        "-" if ours is None else f"{step / ours:.2f} times as fast",
        *(_gib(measured.get(name)) for name in ("held_gib", "memory_gib")),
        f"{measured['cpu_s']:.0f}",
    ]


def _gib(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _shares(shape: Shape, measured: Measured) -> str:
    """Of operations that are computed; of a LoRA in brackets as if its base took gradients too."""
    if not (peak := measured.get("peak_flops")) or "score" not in measured["steps"][-1]:
        return "-"
    score, train = (median(measured, name) * peak for name in ("score", "train"))
    shares = f"{shape.scoring_flops / score:.0%}, {shape.training_flops / train:.0%}"
    return shares + (f" ({shape.training_flops_of_all_weights / train:.0%})" if shape.lora_rank else "")


def _remarks(side: str, found: Mapping[str, Measured], shape: Shape) -> Iterator[str]:
    for name, measured in found.items():
        parts = [measured["error"]] if "error" in measured else [f"a step {median(measured, 'step'):.3f} s"]
        if "batch" in measured:
            parts.append(f"batches of {measured['batch']} of {shape.sequences}")
        parts += [f"{key} {value}" for key, value in measured.get("settings", {}).items()]
        if peak := measured.get("peak_flops"):
            parts.append(f"matrix products {peak / 1e12:.2f} TFLOP/s")
        if "steps" in measured:
            parts.append(f"{len(measured['steps'])} steps")
        yield f"- {f'{side}, {name}' if name else side}: {', '.join(parts)}"
