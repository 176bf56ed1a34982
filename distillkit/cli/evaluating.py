"""`distillkit eval`: the evaluators on a config's student as it starts, or on a run's weights; a file and a table."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from distillkit.cli.command_start import start_command
from distillkit.cli.evaluation_page import show_evaluation
from distillkit.cli.reporting import OUT
from distillkit.cli.working import Working
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.files.atomic import write_json
from distillkit.files.jsonl import explain_write_errors
from distillkit.files.os_errors import explain_os_errors
from distillkit.metrics import finite
from distillkit.probe.evaluate_once import EvaluatedWeights, before_training, evaluate_once, prepare_evaluation
from distillkit.ranks import Rank
from distillkit.registry import Registry
from distillkit.run_directory.directory import EVALUATIONS, run_directory
from distillkit.run_directory.saved_run import SavedWeights


def evaluate_and_report(
    config: RunConfig,
    registry: Registry,
    rank: Rank,
    weights: SavedWeights | None,
    file: Path,
    *,
    quiet: bool = False,
) -> None:
    """Evaluate, write the result into `file` and print it. Raises InputError before anything is loaded."""
    tell = start_command(config, rank, quiet=quiet)
    if tell is None:
        return
    if not quiet:
        OUT.print(f"evaluating {described(config, weights)}")
    with Working(quiet=quiet) as working, explain_os_errors():
        prepared = prepare_evaluation(config, registry, weights, tell, rank)
        before = before_training(prepared, weights, tell)
        found = asyncio.run(evaluate_once(prepared, weights, tell, working.progress))
    result = as_json(config, weights, found, before)
    with explain_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, result, indent=2)
    show_evaluation(found, before, prepared.pipeline.routed_to, OUT)
    OUT.print(f"wrote {file}")


def result_file(config: RunConfig, weights: SavedWeights | None, out: Path | None, *, of_run: bool) -> Path:
    """Where the result goes: `out`, else a file of its own beside the run's, else in the working directory.

    Raises InputError where a file is there already, which is not replaced unless it is named.
    """
    step = 0 if weights is None else weights.step
    default = (
        run_directory(config) / EVALUATIONS / f"step-{step}.json" if of_run else Path(f"{config.name}-eval-start.json")
    )
    if out is None and default.exists():
        raise InputError(f"{default} holds an evaluation already; name a file by --out (this one too, to replace it)")
    return out or default


def described(config: RunConfig, weights: SavedWeights | None) -> str:
    """Which weights: `my-run after step 20 (runs/my-run/checkpoints/step-20)`."""
    if weights is None:
        return f"{config.name}: the student as it starts"
    return f"{config.name} after step {weights.step} ({weights.path})"


def as_json(
    config: RunConfig, weights: SavedWeights | None, found: EvaluatedWeights, before: Mapping[str, JsonValue] | None
) -> dict[str, JsonValue]:
    """The result as its file holds it."""
    dump = config.dump()
    data = dump["data"]
    return {
        "name": config.name,
        "weights": None if weights is None else str(weights.path),
        "step": found.step,
        "rows": found.rows,
        "eval": found.summary,
        "before": None if before is None else dict(before),
        "metrics": {name: finite(value) for name, value in found.metrics.items()},
        "eval_path": data.get("eval_path") if isinstance(data, dict) else None,
        "sampling": dump["sampling"],
        "evaluators": dump["evaluators"],
        "seed": config.seed,
        "distillkit": version("distillkit"),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
