"""The demo's job by several losses: held-out reverse KL by step, and steps and seconds to the same one.

    python benchmarks/demo_losses.py FOLDER [--seeds 0 1 2] [--rates 1.2e-3] [--steps 12]

The job is shortened: one completion of at most 24 tokens for each of 8 prompts a step. Seconds are CPU time of this
process, so that other work on the machine counts little. Each run writes into a directory of its own in FOLDER; one
that has ended there is read and not repeated.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

from pydantic import PrivateAttr

from distillkit import Sink, run
from distillkit.cli.examples import examples_path
from distillkit.config.load import load_config
from distillkit.events import Evaluated, Event, StepFinished
from distillkit_builtin.local.model_files.demo_model import ensure_demo_model

LOSSES: Mapping[str, Any] = {
    "importance_sampling": {"name": "importance_sampling"},
    "reverse-full": {"name": "divergence", "direction": "reverse", "support": "full"},
    "reverse-teacher_topk-20": {"name": "divergence", "direction": "reverse", "support": "teacher_topk", "k": 20},
}
Curve = list[tuple[int, float, float]]
"""Step, CPU seconds of all steps until then (sampling, scoring, training), held-out reverse KL in nats a token."""


class CpuClock(Sink):
    """Writes a curve, evaluations not counted as time."""

    name: ClassVar[str] = "cpu_clock"
    path: str
    _then: float = PrivateAttr(0.0)
    _spent: float = PrivateAttr(0.0)
    _found: Curve = PrivateAttr(default_factory=list)

    def emit(self, event: Event) -> None:
        """A step adds its time; an evaluation is a point."""
        now = time.process_time()
        if isinstance(event, StepFinished):
            self._spent += now - self._then
        if isinstance(event, Evaluated):
            self._found.append((event.step, self._spent, event.results["reverse_kl"].metrics["reverse_kl"]))
            Path(self.path).write_text(json.dumps(self._found), encoding="utf-8")
        if isinstance(event, (StepFinished, Evaluated)):
            self._then = now


def curve(loss: str, seed: int, rate: float, options: argparse.Namespace) -> Curve:
    """What a run measured, now or earlier."""
    folder = options.folder / f"{loss}-{rate:g}-{seed}"
    found = options.folder / f"{folder.name}.json"
    if not (found.exists() and json.loads(found.read_text())[-1][0] == options.steps):
        train_one(loss, seed, rate, options, folder)
    return [(step, seconds, gap) for step, seconds, gap in json.loads(found.read_text())]


def train_one(loss: str, seed: int, rate: float, options: argparse.Namespace, folder: Path) -> None:
    """The demo's config, with another loss, rate and seed, and an evaluation every so many steps."""
    model, job = str(ensure_demo_model(lambda _: None)), examples_path() / "routed_mopd"
    config, _ = load_config(
        [job / "config.yaml"],
        [],
        defaults={
            "log_path": str(folder),
            "seed": seed,
            "data": {"path": str(job / "train.jsonl"), "eval_path": str(job / "heldout.jsonl")},
            "student": {"model": model, "learning_rate": rate},
            "teachers": [{"route_value": "short", "model": model}, {"route_value": "list", "model": model}],
            "loss": LOSSES[loss],
            "train": {"max_steps": options.steps, "eval_every": options.eval_every, "save_every": 0},
            "probe": {"at_start": "never"},
            "evaluators": ["reverse_kl"],
            "sampling": {"completions_per_prompt": 1, "max_completion_tokens": 24},
            "sinks": [CpuClock(path=f"{folder}.json")],
        },
    )
    run(config)


def first_at(found: Curve, target: float) -> tuple[float, float] | None:
    """Step and seconds at which a curve is at the target first, between two evaluations by a straight line."""
    for (step, seconds, high), (next_step, next_seconds, low) in pairwise(found):
        if low <= target:
            part = (high - target) / (high - low) if high > low else 1.0
            return step + part * (next_step - step), seconds + part * (next_seconds - seconds)
    return None


def rows(rate: float, seeds: Sequence[int], options: argparse.Namespace) -> Iterator[str]:
    """A table of one learning rate."""
    targets = {}
    for loss in options.losses:
        curves = [curve(loss, seed, rate, options) for seed in seeds]
        for seed, found in zip(seeds, curves, strict=True):
            target = targets.setdefault(seed, found[-1][2])  # the first loss's own end
            reached = first_at(found, target)
            there = f"{reached[0]:.1f} | {reached[1]:.0f}" if reached else "not | not"
            yield f"| {loss} | {rate:g} | {seed} | {cells(found)} | {found[-1][1]:.0f} | {there} |"
        if len(seeds) > 1:
            means = [tuple(mean(values) for values in zip(*point, strict=True)) for point in zip(*curves, strict=True)]
            reached = first_at(means, mean(targets.values()))
            there = f"{reached[0]:.1f} | {reached[1]:.0f}" if reached else "not | not"
            yield f"| {loss} | {rate:g} | mean | {cells(means)} | {means[-1][1]:.0f} | {there} |"


def cells(found: Curve) -> str:
    """The reverse KLs of a row."""
    return " | ".join(f"{value:.3f}" for _, _, value in found)


def main() -> None:
    """Print the tables, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1.2e-3])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--eval-every", type=int, default=4)
    options = parser.parse_args()
    steps = [*range(0, options.steps, options.eval_every), options.steps]
    print(f"| loss | rate | seed | {' | '.join(f'step {step}' for step in steps)} | s in all | steps to it | s to it |")
    print("|---" * (len(steps) + 6) + "|")
    for rate in options.rates:
        for row in rows(rate, options.seeds, options):
            print(row, flush=True)


if __name__ == "__main__":
    main()
