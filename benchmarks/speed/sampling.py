"""Sampling alone, ours and vLLM's, each in processes of its own.

python -m benchmarks.speed.sampling 64x256 512x256 64x1900 --sides distillkit vLLM
python -m benchmarks.speed.sampling 8x16 --model tiny --vllm-python .venv-vllm/bin/python     # whether it works
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed.markdown import heading, table
from benchmarks.speed.processes import Measured, Processes
from benchmarks.speed.sampling_sizes import SamplingSize
from benchmarks.speed.shapes import SHAPES, Shape
from benchmarks.speed.sides import SAMPLING, Side

KINDS = ("with logprobs", "without logprobs")
CPU_CACHE = {"VLLM_CPU_KVCACHE_SPACE": "1"}
"""GiB, of vLLM on a CPU."""


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="+", type=SamplingSize.parse, help="completions x new tokens, such as 64x256")
    parser.add_argument("--sides", nargs="+", choices=sorted(SAMPLING), default=list(SAMPLING))
    parser.add_argument("--model", choices=sorted(SHAPES), default="main", help="whose student samples")
    parser.add_argument("--repeats", type=int, default=2, help="the best counts, after a call or two to warm up")
    parser.add_argument("--vllm-python", default=sys.executable, help="an interpreter that has vLLM")
    parser.add_argument("--limit-s", type=float, default=240, help="of one process; one that takes longer is given up")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="of all; what is left then is left out")
    parser.add_argument("--folder", type=Path, help="where the model and what was printed is written")
    options = parser.parse_args()
    shape = SHAPES[options.model]
    with tempfile.TemporaryDirectory() as temporary:
        processes = Processes(options.folder or Path(temporary), options.limit_s, options.budget_s)
        measured = {
            (name, setting): found
            for name in options.sides
            for setting, found in _measure(name, SAMPLING[name], shape, options, processes)
        }
    print(heading(shape.device, ("torch", "vllm", "transformers")))
    print(*table_lines(options.sizes, shape, measured), sep="\n")
    sys.exit(any("error" in found for found in measured.values()))


def _measure(
    name: str, side: Side, shape: Shape, options: argparse.Namespace, processes: Processes
) -> Iterator[tuple[str, Measured]]:
    python = options.vllm_python if side.peer else sys.executable
    for setting in side.settings:
        command = [
            python, "-m", "benchmarks.speed.sampling_child", options.model, side.module,
            json.dumps(dict(setting.options)), *map(str, options.sizes), "--repeats", str(options.repeats),
            "--folder", str(processes.folder / options.model),
        ]  # fmt: skip
        if error := processes.write_inputs(options.model, 1):
            yield setting.name, {"error": f"its inputs: {error}"}
            continue
        environment = {**setting.environment, **(CPU_CACHE if shape.device == "cpu" else {})}
        yield setting.name, processes.measure(f"sampling, {name} {setting.name}".strip(), command, environment)


def table_lines(sizes: list[SamplingSize], shape: Shape, measured: dict[tuple[str, str], Measured]) -> Iterator[str]:
    """A row a size: ours, the best of the others with and without logprobs, and the ratios; then what failed."""
    columns = ["", "distillkit", "vLLM with logprobs", "without", "x with", "x without"]
    weights = f"{shape.student.parameters / 1e6:,.0f} million weights"
    yield f"tokens a second: {weights}, {shape.dtype}, prompts of {shape.prompt_tokens} tokens\n"
    yield from table(columns, [_row(str(size), measured) for size in sizes])
    yield ""
    for (name, setting), found in measured.items():
        held = f"{found['held_gib']:.1f} GiB held" if found.get("held_gib") is not None else ""
        said = found.get("error") or held or f"{found.get('wall_s')} s, CPU {found.get('cpu_s')} s"
        yield f"- {f'{name}, {setting}' if setting else name}: {said}"


def _row(size: str, measured: dict[tuple[str, str], Measured]) -> list[str]:
    def best(side: str, kind: str) -> tuple[float, str]:
        found = [
            (each["tokens_per_second"][size][kind], setting)
            for (name, setting), each in measured.items()
            if name == side and "error" not in each and kind in each["tokens_per_second"][size]
        ]
        return max(found, default=(0.0, ""))

    ours, _ = best("distillkit", KINDS[0])
    theirs = [best("vLLM", kind) for kind in KINDS]
    return [
        size.replace("x", " x "),
        f"{ours:,.0f}" if ours else "-",
        *(f"{speed:,.0f} ({setting})" if speed else "-" for speed, setting in theirs),
        *(f"{ours / speed:.2f}" if ours and speed else "-" for speed, _ in theirs),
    ]


if __name__ == "__main__":
    main()
