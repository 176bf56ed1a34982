"""A run from its config to its result, in this process or, where rank 0 runs the engine, beside it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from distillkit.config.run_config import RunConfig
from distillkit.context import SharedObjects, log_level
from distillkit.errors import MissingExtraError
from distillkit.events import Notice
from distillkit.files.os_errors import explain_os_errors
from distillkit.loop.assemble import assemble
from distillkit.loop.engine import Engine
from distillkit.loop.evaluator_runner import eval_summary
from distillkit.loop.ledger import Ledger, Totals
from distillkit.loop.session import run_session
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.preflight.compatibility import require_spreading
from distillkit.preflight.prepared_run import context_for, prepare_run
from distillkit.ranks import ONLY, Rank
from distillkit.registry import Registry
from distillkit.run_directory.directory import claim_directory, require_startable, run_directory
from distillkit.run_directory.identity import identity_of
from distillkit.run_directory.result import RunResult, finished_run
from distillkit.run_directory.resuming import began_on, checkpoint_to_resume, require_unfinished
from distillkit.run_directory.run_files import RunFiles, read_metrics
from distillkit.run_directory.run_lock import require_nobody_runs
from distillkit.run_directory.run_start import RunStart

log = logging.getLogger("distillkit")
NEW_RUN = RunStart()


async def execute(
    config: RunConfig,
    registry: Registry,
    start: RunStart = NEW_RUN,
    rank: Rank = ONLY,
    on_engine: Callable[[Engine], None] = lambda engine: None,
) -> RunResult:
    """Check, open, train, close. The one way in which a run happens; `on_engine` hears of it before it starts."""
    with explain_os_errors():
        if not rank.runs_engine:
            return await _run_worker(config, rank)
        return await _direct(config, registry, start, rank, on_engine)


async def _direct(
    config: RunConfig, registry: Registry, start: RunStart, rank: Rank, on_engine: Callable[[Engine], None]
) -> RunResult:
    """The run as the process sees it that runs the engine."""
    started = time.perf_counter()
    run_dir = run_directory(config)
    dispatcher = SinkDispatcher()
    require_nobody_runs(run_dir)
    require_startable(run_dir, start)
    began = began_on(run_dir) if start.resume else None
    prepared = await asyncio.to_thread(prepare_run, config, registry, dispatcher.tell, rank, began)
    if prepared.missing:
        raise MissingExtraError("\n".join(prepared.missing))
    plugins = prepared.plugins.by_key.values()
    classes, known = {type(plugin) for plugin in plugins}, {info.cls for info in registry.infos()}
    written = {name for cls in known for name in cls.writes}
    written |= {name for plugin in plugins for name in plugin.writes}
    with (
        claim_directory(run_dir, start, plugins=classes, known=known, written=written) as rest,
        RunFiles.open(run_dir) as files,
    ):
        dispatcher.log_early()
        if rest:
            dispatcher.warn(f"these are left alone in {run_dir}, since no run writes them: {', '.join(rest)}")
        identity = await asyncio.to_thread(identity_of, prepared)
        checkpoint = checkpoint_to_resume(run_dir, identity, start, dispatcher.warn) if start.resume else None
        if checkpoint is not None:  # before the plugins are opened: the rates of a schedule follow the plan
            path, state = checkpoint
            prepared = prepared.continued(state.step, Totals.restored(state.totals).rows_settled)
            require_unfinished(path, prepared.plan.steps)
        files.write_config(config, registry)
        with Ledger(run_dir / "ledger.jsonl", config.train.max_failed_fraction) as ledger:
            engine = assemble(prepared, files, ledger, dispatcher, identity)
            on_engine(engine)
            summary = await run_session(engine, started, checkpoint)
    if engine.exported is None:
        raise AssertionError("a run that ended well has exported its weights")
    stages = {stage: eval_summary(figures.results) for stage, figures in engine.evaluations.figures.items()}
    return RunResult(run_dir, engine.exported, engine.step, stages, read_metrics(run_dir), summary)


async def _run_worker(config: RunConfig, rank: Rank) -> RunResult:
    """What this process does where rank 0 runs the engine: its share. Raises RunFailedError if the run fails."""
    return finished_run(run_directory(config), await work_beside(config, rank))


def _log(notice: Notice) -> None:
    """Of a rank without a terminal."""
    log.log(log_level(notice.kind), "%s", notice.message)


async def work_beside(config: RunConfig, rank: Rank) -> Mapping[str, str] | None:
    """Do this rank's share of what rank 0 samples, scores and trains, until that closes the student.

    Returns as `Student.work`.
    """
    require_spreading(config.student, rank)
    shared = SharedObjects()
    context = context_for("student", config, shared, _log, rank)
    try:
        return await config.student.work(context)
    finally:
        await shared.release("student")
