"""`run` and `arun`: one run from config to result. A library call raises; it never exits or prints by itself."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from distillkit.config.load import load_config
from distillkit.config.run_config import RunConfig
from distillkit.context import RunContext, SharedObjects
from distillkit.errors import InputError, MissingExtraError, RunFailedError
from distillkit.events import EvalStage, RunFinished, RunStarted
from distillkit.files.os_errors import explained
from distillkit.loop.blocking import run_blocking
from distillkit.loop.engine import Engine
from distillkit.loop.ledger import Ledger, Totals
from distillkit.loop.rollback import undone_steps
from distillkit.loop.sink_dispatcher import Announcer
from distillkit.preflight.compatibility import require_spreading
from distillkit.preflight.prepared_run import Preflight, context_for, inspect_run
from distillkit.ranks import this_rank
from distillkit.registry import Registry
from distillkit.roles.attribution import attribute_to, one_line_error
from distillkit.roles.plugin import Plugin
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student
from distillkit.run_directory.checkpoint import EngineState, checkpoints, newest, step_of
from distillkit.run_directory.directory import is_complete, read_summary, require_room, room, run_directory
from distillkit.run_directory.files import RunFiles, read_metrics
from distillkit.run_directory.identity import changes, identity_of, other_held_out, require_same
from distillkit.run_directory.rollout_codec import dropped

log = logging.getLogger("distillkit")
ConfigLike = RunConfig | Mapping[str, Any] | str | Path


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left."""

    run_dir: Path
    adapter_path: Path
    """`adapter/` in PEFT format, or `model/` where all weights were trained."""
    steps: int
    eval: Mapping[EvalStage, Mapping[str, Any]]
    """`before` and `after`, as in `summary.json`."""
    metrics: Sequence[Mapping[str, JsonValue]]
    """One row a step, ready for `pandas.DataFrame(result.metrics)`."""
    summary: Mapping[str, JsonValue]


def run(
    config: ConfigLike,
    *,
    plugins: Sequence[type[Plugin] | str | Path] = (),
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
) -> RunResult:
    """Run `config` to its end. Works in a notebook too, where an event loop is running already.

    An interrupt (Ctrl-C, a notebook's stop button) ends it at once, with what it opened closed: unlike `distillkit run`
    it does not finish the step in hand. `resume=True` goes on from the last save (`train.save_every`).

    Args:
        config: a `RunConfig`, a mapping as in a config file, or the path of one.
        plugins: plugin classes to choose from by name besides the installed ones, and Python files with some.
        resume: go on from the newest checkpoint in the run's directory.
        overwrite: replace the run that the directory holds.
        force: go on although data, settings, tokenizers or models are not those of the checkpoint.

    Raises:
        DistillkitError: `InputError` before anything is loaded if the input is wrong; another child if the run fails.
        KeyboardInterrupt: if it was interrupted.
    """
    return run_blocking(arun(config, plugins=plugins, resume=resume, overwrite=overwrite, force=force))


async def arun(
    config: ConfigLike,
    *,
    plugins: Sequence[type[Plugin] | str | Path] = (),
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
) -> RunResult:
    """`run` for code that is asynchronous itself; cancelling it is the interrupt."""
    resolved, registry = resolve(config, plugins)
    return await execute(resolved, registry, resume=resume, overwrite=overwrite, force=force)


def resolve(config: ConfigLike, plugins: Sequence[type[Plugin] | str | Path] = ()) -> tuple[RunConfig, Registry]:
    """A `RunConfig` and the registry that its names come from. Raises ConfigError."""
    registry = Registry.discover()
    scripts = [str(plugin) for plugin in plugins if isinstance(plugin, str | Path)]
    for plugin in plugins:
        if not isinstance(plugin, str | Path):
            registry.add(plugin)
    if isinstance(config, RunConfig):
        config = config.model_copy(update={"plugins": tuple(dict.fromkeys([*config.plugins, *scripts]))})
        for script in config.plugins:
            registry.add_script(Path(script))
        return config, registry
    if isinstance(config, str | Path):
        return load_config([Path(config)], scripts=scripts, registry=registry)
    return load_config([], scripts=scripts, extra=config, registry=registry)


async def execute(
    config: RunConfig,
    registry: Registry,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    on_engine: Callable[[Engine], None] = lambda engine: None,
) -> RunResult:
    """Check, open, train, close. The one way in which a run happens; `on_engine` hears of it before it starts."""
    with explained():
        return await _execute(config, registry, resume, overwrite, force, on_engine)


async def _execute(
    config: RunConfig,
    registry: Registry,
    resume: bool,
    overwrite: bool,
    force: bool,
    on_engine: Callable[[Engine], None],
) -> RunResult:
    if not this_rank().directs:
        return await _work(config)
    started = time.perf_counter()
    run_dir = run_directory(config)
    announcer = Announcer()
    require_room(run_dir, resume=resume, overwrite=overwrite)
    flight = await asyncio.to_thread(inspect_run, config, registry, announcer.warn)
    if flight.missing:
        raise MissingExtraError("\n".join(flight.missing))
    if resume:
        require_unfinished(run_dir, flight.plan.steps)
    plugins = flight.cast.plugins.values()
    classes, known = {type(plugin) for plugin in plugins}, {info.cls for info in registry.infos()}
    written = {name for cls in known for name in cls.writes}
    written |= {name for plugin in plugins for name in plugin.writes}
    with (
        room(run_dir, resume=resume, overwrite=overwrite, plugins=classes, known=known, written=written) as rest,
        RunFiles.open(run_dir) as files,
    ):
        if rest:
            announcer.warn(f"these are left alone in {run_dir}, since no run writes them: {', '.join(rest)}")
        identity = await asyncio.to_thread(identity_of, flight)
        start = _start(run_dir, identity, announcer, force=force) if resume else None
        if start is not None:  # before the plugins are opened: the rates of a schedule follow the plan
            flight = flight.continued(start[1].step, Totals.restored(start[1].totals).rows_settled)
        files.write_config(config, registry)
        with Ledger(run_dir / "ledger.jsonl", config.train.max_failed_fraction) as ledger:
            engine = Engine(flight, files, ledger, announcer, identity)
            on_engine(engine)
            summary = await _watched(engine, started, start)
    if engine.exported is None:
        raise AssertionError("a run that ended well has exported its weights")
    return RunResult(run_dir, engine.exported, engine.step, dict(engine.evals), read_metrics(run_dir), summary)


async def _work(config: RunConfig) -> RunResult:
    """What this process does where rank 0 runs the engine: its share. Raises RunFailedError if the run fails."""
    require_spreading(config.student)
    shared = SharedObjects()
    context = context_for("student", config, shared, log.warning)
    try:
        await config.student.work(context)
    finally:
        await shared.release("student")
    return finished_run(run_directory(config))


def finished_run(run_dir: Path) -> RunResult:
    """The result of a run of another process. Raises RunFailedError if it has not completed, or is not found here."""
    summary = read_summary(run_dir)
    if summary is None or summary["status"] != "completed":
        ended = "no summary.json is there" if summary is None else f"its status is {summary['status']}"
        raise RunFailedError(f"{run_dir}: rank 0 ended the run, and {ended}; rank 0 says why")
    stages = cast(dict[EvalStage, Mapping[str, Any]], summary["eval"])
    steps, adapter = int(str(summary["steps"])), Path(str(summary["adapter_path"]))
    return RunResult(run_dir, adapter, steps, stages, read_metrics(run_dir), summary)


def require_unfinished(run_dir: Path, steps: int) -> None:
    """Raise InputError if there is nothing left for a resume to do."""
    last = checkpoints(run_dir)[-1]
    trained = step_of(last)
    if trained > steps or (trained == steps and is_complete(run_dir)):
        raise InputError(f"{last}: this run is complete; raise train.max_steps or data.epochs to go on")


def _start(
    run_dir: Path, identity: Mapping[str, JsonValue], announcer: Announcer, *, force: bool
) -> tuple[Path, EngineState]:
    """Where a resumed run goes on. Raises InputError, before anything is opened, if it is another run's."""
    path, state = newest(run_dir, announcer.warn)
    if not force:
        require_same(state.identity, identity, path)
    forced = list(changes(state.identity, identity))
    if forced:
        announcer.warn(f"going on by force, as another run than {path} was written by: {'; '.join(forced)}")
    if forced and state.in_flight:
        announcer.warn(dropped(state.in_flight, "they are those of the run as it was"))
        state = replace(state, in_flight=())
    if other_held_out(state.identity, identity):
        announcer.warn(
            f"the held-out rows are others than before: evaluations after step {state.step} cannot be compared with "
            "earlier ones, so the summary holds none from before training"
        )
        state = replace(state, before=None)
    return path, state


async def _watched(engine: Engine, started: float, start: tuple[Path, EngineState] | None) -> dict[str, JsonValue]:
    """Open the plugins and run; whatever comes of it is in `run.log` and `summary.json`, and told to the sinks."""
    flight, files, announcer = engine.flight, engine.files, engine.announcer
    for note in flight.notes:
        announcer.warn(note)
    ended: BaseException | None = None
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(opened(flight, files.run_dir, announcer))
            if start is not None:
                await engine.resume(*start)
            config, first = flight.config, engine.step + 1
            announcer.emit(
                RunStarted(config.name, files.run_dir, flight.plan, flight.intake.teachers, first, config.dump())
            )
            await unless_broken(engine.run(), config.student)
        except BaseException as error:
            ended = error
            if _status(error) == "interrupted":
                log.info("interrupted at step %d; %s", engine.step + 1, _next_after(files.run_dir))
            else:
                log.exception("the run ended at step %d", engine.step + 1)
            raise
        finally:
            summary = summarize(engine, time.perf_counter() - started, ended)
            files.write_summary(summary)
            announcer.emit(RunFinished(summary, None if ended is None else one_line_error(ended)))
    return summary


async def unless_broken(work: Coroutine[Any, Any, None], student: Student) -> None:
    """Do `work`, or raise why the student cannot go on, as soon as it says so."""
    working, broken = asyncio.ensure_future(work), asyncio.ensure_future(student.until_broken())
    try:
        await asyncio.wait((working, broken), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await broken
        await working
    finally:
        await _ended(working, broken)


async def _ended(*tasks: asyncio.Future[None]) -> None:
    """Cancel what is not done, and wait until it has come to its end, however often this is cancelled meanwhile."""
    for task in tasks:
        task.cancel()
    while not all(task.done() for task in tasks):
        with suppress(asyncio.CancelledError):
            await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # so that it counts as seen


@asynccontextmanager
async def opened(flight: Preflight, run_dir: Path, announcer: Announcer) -> AsyncIterator[None]:
    """Open every plugin, sinks first, and close them in reverse order however the run ends."""

    def context(user: str) -> RunContext:
        found = context_for(user, flight.config, flight.shared, announcer.warn)
        return replace(found, run_dir=run_dir, plan=flight.plan)

    listening: list[Sink] = []
    sinks = {user: plugin for user, plugin in flight.cast.plugins.items() if isinstance(plugin, Sink)}
    async with AsyncExitStack() as stack:
        for user, sink in sinks.items():
            stack.push_async_callback(flight.shared.release, user)
            if await announcer.open_sink(sink, context(user)):
                stack.push_async_callback(announcer.close_sink, sink)
                listening.append(sink)
        announcer.attach(listening)
        for user, plugin in flight.cast.plugins.items():
            if user not in sinks:
                stack.push_async_callback(flight.shared.release, user)
                stack.push_async_callback(plugin.close)
                with attribute_to(plugin, "while it was opened"):
                    await plugin.open(context(user))
        yield


def _next_after(run_dir: Path) -> str:
    """What a resume would do."""
    saved = checkpoints(run_dir)
    if not saved:
        return "there is no checkpoint to resume from (train.save_every writes some on the way)"
    return f"a resume goes on after step {step_of(saved[-1])}"


def summarize(engine: Engine, wall_seconds: float, ended: BaseException | None) -> dict[str, JsonValue]:
    """What `summary.json` holds; `ended` is what ended the run before its time."""
    totals = engine.ledger.totals
    summary: dict[str, JsonValue] = {
        "name": engine.flight.config.name,
        "status": _status(ended),
        "error": one_line_error(ended) if _status(ended) == "failed" and ended is not None else None,
        "steps": engine.step,
        "rollbacks": len(engine.guards.undone),
        "undone_steps": undone_steps(engine.guards.undone),
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
        "sink_errors": dict(engine.announcer.failures),
        "adapter_path": None if engine.exported is None else str(engine.exported),
    }
    evals: dict[str, JsonValue] = {stage: dict(result) for stage, result in engine.evals.items() if stage != "during"}
    return {**summary, "eval": evals}


def _status(ended: BaseException | None) -> str:
    if ended is None:
        return "completed"
    return "interrupted" if isinstance(ended, KeyboardInterrupt | asyncio.CancelledError) else "failed"
