"""A run between its first and its last plugin: all are opened, used, closed, and what came of it is written down."""

import logging
import time
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from distillkit.errors import is_interrupt
from distillkit.events import RunFinished, RunStarted
from distillkit.loop.assemble import resume
from distillkit.loop.engine import Engine
from distillkit.loop.evaluator_runner import eval_summary
from distillkit.loop.interpreter import loaded_objects_left_alone, short_turns
from distillkit.loop.opened_plugins import opened_plugins, opened_sinks
from distillkit.loop.run_story import chosen
from distillkit.loop.unless_broken import unless_broken
from distillkit.preflight.objective import objective
from distillkit.roles.attribution import one_line_error
from distillkit.run_directory.checkpoint import EngineState
from distillkit.run_directory.codec import to_json
from distillkit.run_directory.provenance import Provenance
from distillkit.run_directory.resuming import where_a_resume_goes_on
from distillkit.verdict.verdict_sentences import verdict_lines

log = logging.getLogger("distillkit")


async def run_session(
    engine: Engine, started: float, checkpoint: tuple[Path, EngineState] | None
) -> dict[str, JsonValue]:
    """Open the plugins and run; whatever comes of it is in `run.log` and `summary.json`, and the sinks hear it."""
    prepared, files, dispatcher = engine.prepared, engine.files, engine.dispatcher
    began = datetime.now().astimezone() - timedelta(seconds=time.perf_counter() - started)
    provenance = Provenance(prepared, began, None if checkpoint is None else checkpoint[1].step)
    provenance.log_beginning()
    for notice in prepared.notices:
        dispatcher.tell(notice)
    ended: BaseException | None = None
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(opened_sinks(prepared, files.run_dir, dispatcher))
            loading = partial(dispatcher.phase, "load")
            await stack.enter_async_context(opened_plugins(prepared, files.run_dir, dispatcher.tell, loading=loading))
            provenance.opened()
            if checkpoint is not None:
                await resume(engine, *checkpoint)
            running: dict[str, JsonValue] = {"status": "running", "provenance": provenance.to_json()}
            files.write_summary({**summarize(engine, 0.0, None), **running})
            dispatcher.emit(_started(engine))
            with loaded_objects_left_alone(), short_turns():
                await unless_broken(engine.run(), prepared.config.student)
        except BaseException as error:
            ended = error
            if _status(error) == "interrupted":
                log.info("interrupted at step %d; %s", engine.step + 1, where_a_resume_goes_on(files.run_dir))
            else:
                log.exception("the run ended at step %d", engine.step + 1)
            raise
        finally:
            summary = summarize(engine, time.perf_counter() - started, ended)
            verdict, words = _verdict(engine)
            summary |= {"verdict": verdict, "provenance": provenance.to_json(datetime.now().astimezone())}
            files.write_summary(summary)
            dispatcher.report_failures()
            dispatcher.emit(RunFinished(summary, None if ended is None else one_line_error(ended), words))
    return summary


def _started(engine: Engine) -> RunStarted:
    prepared, config = engine.prepared, engine.prepared.config
    first = engine.step + (engine.to_follow_up is None)
    teachers = prepared.pipeline.routed_to
    trained_on = objective(config, prepared.pipeline)
    return RunStarted(config.name, engine.files.run_dir, prepared.plan, teachers, first, config.dump(), trained_on)


def _verdict(engine: Engine) -> tuple[JsonValue, str]:
    """Whether it worked, as `summary.json` has it, and in words, as `run.log` has it."""
    verdict = engine.evaluations.verdict(engine.guards.steps_seen())
    lines = verdict_lines(verdict)
    for line in lines:
        log.info("%s", line)
    return to_json(verdict), "\n".join(lines)


def summarize(engine: Engine, wall_seconds: float, ended: BaseException | None) -> dict[str, JsonValue]:
    """What `summary.json` holds; `ended` is what ended the run before its time."""
    totals = engine.ledger.totals
    summary: dict[str, JsonValue] = {
        "name": engine.prepared.config.name,
        "status": _status(ended),
        "error": one_line_error(ended) if _status(ended) == "failed" and ended is not None else None,
        "steps": engine.step,
        "planned_steps": engine.prepared.plan.steps,
        "rows": totals.rows_admitted,
        "trained_rows": totals.rows_trained,
        "failed_rows": totals.rows_failed,
        "kept_rows": totals.rows_kept,
        "completions": totals.completions,
        "trained_completions": totals.trained_completions,
        "failed_completions": totals.failed_completions,
        "kept_completions": totals.kept_completions,
        "completion_tokens": totals.completion_tokens,
        "wall_s": round(wall_seconds, 3),
        "train_s": round(engine.train_seconds, 3),
        "settings": chosen(engine.prepared.config.dump(), engine.prepared.plan),
        "sink_errors": dict(engine.dispatcher.failures),
        "adapter_path": None if engine.exported is None else str(engine.exported),
    }
    found = engine.evaluations.figures.items()
    evals: dict[str, JsonValue] = {stage: eval_summary(each.results) for stage, each in found if stage != "during"}
    return {**summary, "eval": evals}


def _status(ended: BaseException | None) -> str:
    if ended is None:
        return "completed"
    return "interrupted" if is_interrupt(ended) else "failed"
