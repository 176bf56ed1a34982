"""Whole steps, ours and TRL's, each in a process of its own; tables in Markdown.

python -m benchmarks.speed main lora wide 8b --sides distillkit "TRL with vLLM"
python -m benchmarks.speed main lora --sides distillkit "TRL with vLLM" --limit-s 240 --budget-s 540    # ten minutes
python -m benchmarks.speed cpu cpu-bf16 --trl-python .venv-trl/bin/python
python -m benchmarks.speed main --steps 3 --sides TRL "TRL, static cache" "TRL, liger"
python -m benchmarks.speed main --steps 8 --sides distillkit "distillkit, full KL"
python -m benchmarks.speed main --steps 7 --sides distillkit "distillkit, sharded" --ranks 2

TRL's `train` is all that its sampling leaves of a step, scoring included.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.speed.machine import fast_in
from benchmarks.speed.markdown import heading
from benchmarks.speed.processes import Measured, Processes
from benchmarks.speed.shapes import SHAPES, Shape
from benchmarks.speed.sides import STEPS, Setting
from benchmarks.speed.step_tables import table_lines

Found = dict[str, dict[str, dict[str, Measured]]]
"""By shape, side and setting."""


def main() -> None:
    """Measure, and print a table a shape."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        processes = Processes(options.folder or Path(temporary), options.limit_s, options.budget_s)
        found: Found = {}
        for name, side in _wanted(options):
            measured = found.setdefault(name, {}).setdefault(side, {})
            first = STEPS[side].settings[0]
            measured[first.name] = _measure(name, side, first, options, processes)
        for name, sides in found.items():
            for side, measured in sides.items():
                for setting in STEPS[side].settings[1:]:
                    if _worth_trying(measured, SHAPES[name], setting):
                        measured[setting.name] = _measure(name, side, setting, options, processes)
    _print(found, options)
    sys.exit(
        any("error" in measured for sides in found.values() for each in sides.values() for measured in _best(each))
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", choices=sorted(SHAPES))
    parser.add_argument(
        "--steps", type=int, help="of every side, the first of which is not counted; left out: as suits"
    )
    parser.add_argument("--sides", nargs="+", choices=sorted(STEPS), default=("distillkit", "TRL"))
    parser.add_argument("--ranks", type=int, default=1, help="processes, by torchrun; as many times the prompts")
    parser.add_argument(
        "--trl-python", default=sys.executable, help="an interpreter that has TRL, and vLLM for its side"
    )
    parser.add_argument("--limit-s", type=float, default=1800, help="of one process; one that takes longer is given up")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="of all; what is left then is left out")
    parser.add_argument(
        "--folder", type=Path, help="where models and what was printed are written, and found the next time"
    )
    options = parser.parse_args()
    if options.ranks > 1 and any(STEPS[side].peer for side in options.sides):
        parser.error("--ranks is for distillkit's sides: name them by --sides")
    if options.steps is not None and options.steps < 2:
        parser.error("--steps must be at least 2: the first is not counted")
    return options


def _wanted(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for name in options.shapes:
        if fast_in(SHAPES[name].device, SHAPES[name].dtype):
            yield from ((name, side) for side in options.sides)
        else:
            print(f"{name} is left out: this machine is not fast in {SHAPES[name].dtype}", file=sys.stderr)


def _worth_trying(measured: dict[str, Measured], shape: Shape, setting: Setting) -> bool:
    """Where nothing worked so far; or, asleep, where a batch could be larger if vLLM held nothing meanwhile."""
    worked = [each for each in measured.values() if "error" not in each]
    return not worked or (setting.name == "asleep" and worked[0]["batch"] < shape.sequences)


def _measure(name: str, side: str, setting: Setting, options: argparse.Namespace, processes: Processes) -> Measured:
    """What one side measured; of several ranks, the first."""
    shape, chosen = SHAPES[name], STEPS[side]
    python = options.trl_python if chosen.peer else sys.executable
    steps = options.steps or shape.steps[chosen.peer]
    code = [
        "-m", "benchmarks.speed.child", name, chosen.module, json.dumps(dict(setting.options)),
        "--steps", str(steps), "--ranks", str(options.ranks), "--folder", str(processes.folder / name),
    ]  # fmt: skip
    if error := processes.write_inputs(name, steps, options.ranks):
        return {"error": f"its inputs: {error}"}
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(options.ranks)] if options.ranks > 1 else []
    return processes.measure(f"{name}, {side} {setting.name}".strip(), [python, *start, *code], setting.environment)


def _best(found: dict[str, Measured]) -> list[Measured]:
    """Those that worked; where none did, all."""
    return [measured for measured in found.values() if "error" not in measured] or list(found.values())


def _print(found: Found, options: argparse.Namespace) -> None:
    packages = ("distillkit", "torch", "transformers", "trl", "vllm", "peft")
    for name, measured in found.items():
        shape = replace(SHAPES[name], prompts=SHAPES[name].prompts * options.ranks)
        if name == next(iter(found)):
            print(heading(shape.device, packages))
        title = name if options.ranks == 1 else f"{name}, {options.ranks} ranks"
        print(*table_lines(title, shape, measured), sep="\n")


if __name__ == "__main__":
    main()
