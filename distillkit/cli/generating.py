"""`distillkit generate`: what a run's student writes now, beside what it wrote before it was trained."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from distillkit.cli.command_start import start_command
from distillkit.cli.generation_page import show_before_and_after
from distillkit.cli.reporting import OUT
from distillkit.cli.working import Working
from distillkit.config.default_plugins import DEFAULT_PROMPTS
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.events import Notice
from distillkit.files.os_errors import explain_os_errors
from distillkit.probe.before_and_after import BeforeAndAfter, asked, completed, rows_asked
from distillkit.probe.open_student import checked_student
from distillkit.ranks import Rank
from distillkit.records import Rollout
from distillkit.registry import Registry
from distillkit.run_directory.held_weights import held_weights
from distillkit.run_directory.saved_run import starting_from


def generate_and_report(
    config: RunConfig,
    registry: Registry,
    rank: Rank,
    run_dir: Path,
    step: int | None,
    questions: Sequence[str],
    rows: int,
    *,
    full: bool = False,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Sample both sides and print them. Raises InputError before anything is loaded."""
    tell = start_command(config, rank, quiet=quiet)
    if tell is None:
        return
    if questions and config.prompts.name != DEFAULT_PROMPTS:
        tell(Notice(f"prompts: {config.prompts.name!r} builds prompts of rows; a --question is read as it is"))
    with explain_os_errors(), held_weights(run_dir, step, tell) as weights:
        if weights is None:
            raise InputError("--step 0 is the student as it started, which stands beside any other step")
        with Working(quiet=quiet) as working:
            alone = checked_student(config, tell, rank, weights)
            trained = checked_student(starting_from(config, weights), tell, rank) if weights.exported else alone
            prompts = asked(alone, questions) if questions else rows_asked(config, registry, alone, rows)
            found = asyncio.run(completed(alone, trained, registry, weights, prompts, working.say))
    if as_json:
        OUT.print(json.dumps([_record(each, weights.step) for each in found], indent=2))
    else:
        show_before_and_after(found, weights.step, OUT, full=full)


def _record(found: BeforeAndAfter, step: int) -> dict[str, JsonValue]:
    question = found.question
    sides = {"before": _side(found.before), "after": _side(found.after)}
    return {"place": question.place, "question": question.text, "step": step, **sides}


def _side(rollout: Rollout | None) -> JsonValue:
    if rollout is None:
        return None
    return {"text": rollout.text, "tokens": len(rollout.token_ids), "finish_reason": rollout.finish_reason}
