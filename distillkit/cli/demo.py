"""`distillkit demo`: routed distillation of a real model on this machine, and what changed."""

import json
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distillkit.cli.examples import examples_path
from distillkit.cli.running import run_and_report
from distillkit.config.load import load_config
from distillkit.errors import MissingExtraError
from distillkit.ranks import Rank
from distillkit.run_directory.directory import MARKER, run_directory

QUESTIONS_SHOWN = 3


def run_demo(overrides: Sequence[str], console: Console, rank: Rank, *, quiet: bool = False) -> None:
    """Get the model, run `examples/routed_mopd` on it, and show before and after."""
    from distillkit_builtin.local.model_files.demo_model import ensure_demo_model
    from distillkit_builtin.local.requirements import missing_extra

    missing = missing_extra("the demo", "gguf")
    if missing:  # before 94 MB are downloaded
        raise MissingExtraError(missing)
    console.print(
        "Two teachers, one student, all SmolLM2-135M-Instruct. Each teacher reads a few examples that the student"
    )
    console.print(
        "never sees: one answers in one short sentence, the other in a numbered list. The student learns from"
    )
    console.print("their logprobs of its own answers when to do which.")
    model = str(ensure_demo_model(console.print))
    folder = examples_path() / "routed_mopd"
    config_file = folder / "config.yaml"
    teachers = [{"route_value": "short", "model": model}, {"route_value": "list", "model": model}]
    data = {"path": str(folder / "train.jsonl"), "eval_path": str(folder / "heldout.jsonl")}
    paths: Mapping[str, Any] = {
        "name": free_name("demo"),
        "data": data,
        "student": {"model": model},
        "teachers": teachers,
    }
    config, registry = load_config([config_file], overrides, defaults=paths)
    result = run_and_report(config, registry, [str(run_directory(config) / MARKER)], rank, quiet=quiet)
    show_change(result.run_dir, console)


def demo_model() -> Path:
    """Where the demo's model lies, or will lie once it was made."""
    from distillkit_builtin.local.model_files.demo_model import demo_model_path

    return demo_model_path()


def free_name(stem: str) -> str:
    """`demo`, or `demo-2` and so on: the first whose run directory holds no run."""
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(name for name in names if not (Path("runs") / name / MARKER).exists())


def show_change(run_dir: Path, console: Console) -> None:
    """Some held-out answers before and after, side by side, below the run's own verdict."""
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    evals = summary["eval"]
    if "before" in evals and "after" in evals:
        console.print(
            "What is taught is the form of the answers. Whether they are correct is neither trained nor measured here."
        )
        console.print(completions_table(run_dir, summary["steps"]))
    console.print(f"training took {summary['train_s']:.0f} s of {summary['wall_s']:.0f} s in all")


def completions_table(run_dir: Path, last_step: int) -> Table:
    """The same held-out questions before and after, side by side."""
    with (run_dir / "samples.jsonl").open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    held_out = [record for record in records if record["split"] == "heldout"]
    text = {(record["step"], record["row_id"]): record["text"].strip() for record in held_out}
    table = Table("question", "before", "after", show_lines=True)
    asked = {record["row_id"]: record for record in held_out if record["step"] == last_step}
    by_route: dict[str, list[dict[str, Any]]] = {}
    for record in asked.values():
        by_route.setdefault(record["route"], []).append(record)
    turns = [record for group in zip(*by_route.values(), strict=False) for record in group]
    for record in turns[:QUESTIONS_SHOWN]:
        question = f"{record['question']} ({record['route']})"
        table.add_row(question, text.get((0, record["row_id"]), ""), text[last_step, record["row_id"]])
    return table
