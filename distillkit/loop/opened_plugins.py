"""A run's plugins, open inside a block and closed behind it, whatever ends it."""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from distillkit.context import RunContext, SharedObjects
from distillkit.events import Notice
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.preflight.prepared_run import PreparedRun, context_for
from distillkit.roles.attribution import attribute_to
from distillkit.roles.plugin import Plugin
from distillkit.roles.scorer import Scorer
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student

log = logging.getLogger("distillkit")


@asynccontextmanager
async def opened_sinks(prepared: PreparedRun, run_dir: Path, dispatcher: SinkDispatcher) -> AsyncIterator[None]:
    """Open the sinks, which hear events from then on, and close them however the run ends.

    Those that show things on the terminal are closed last: they show what becomes of the others.
    """
    listening: list[Sink] = []
    sinks = [(user, plugin) for user, plugin in prepared.plugins.by_key.items() if isinstance(plugin, Sink)]
    async with AsyncExitStack() as stack:
        for user, sink in sorted(sinks, key=lambda each: type(each[1]).silence is Sink.silence):
            release_on_exit(stack, prepared.shared, user)
            if await dispatcher.open_sink(sink, _context(user, prepared, run_dir, dispatcher.tell)):
                stack.push_async_callback(dispatcher.close_sink, sink)
                listening.append(sink)
        dispatcher.attach(listening)
        yield


@asynccontextmanager
async def opened_plugins(
    prepared: PreparedRun,
    run_dir: Path,
    tell: Callable[[Notice], None],
    outer_dir: Path | None = None,
    loading: Callable[[str], None] = lambda what: None,
) -> AsyncIterator[None]:
    """Open every other plugin, and close them in reverse order however the run ends.

    They write in `run_dir`; where that is a temporary folder of the run's directory, `outer_dir` is that directory.
    `loading` hears what is opened next.
    """
    async with AsyncExitStack() as stack:
        for user, plugin in prepared.plugins.by_key.items():
            if not isinstance(plugin, Sink):
                release_on_exit(stack, prepared.shared, user)
                stack.push_async_callback(close_plugin, plugin)
                started = time.perf_counter()
                loading(_called(plugin))
                with attribute_to(plugin, "while it was opened"):
                    await plugin.open(replace(_context(user, prepared, run_dir, tell), outer_dir=outer_dir))
                if type(plugin).open is not Plugin.open:
                    log.info("opened %s (%s) in %.1f s", user, plugin.name, time.perf_counter() - started)
        yield


def release_on_exit(stack: AsyncExitStack, shared: SharedObjects, user: str) -> None:
    """Let go of what `user` shares when `stack` ends, where what ends it is known to whoever is closed then."""

    async def release(
        kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await shared.release(user, error)

    stack.push_async_exit(release)


async def close_plugin(plugin: Plugin) -> None:
    """Close a plugin; what it raises there is attributed to it."""
    with attribute_to(plugin, "in close()"):
        await plugin.close()


def _called(plugin: Plugin) -> str:
    """How people read which plugin of the run this is."""
    if isinstance(plugin, Scorer):
        return f"teacher {plugin.teacher.shown}"
    return "student" if isinstance(plugin, Student) else f"{plugin.role} {plugin.name}"


def _context(user: str, prepared: PreparedRun, run_dir: Path, tell: Callable[[Notice], None]) -> RunContext:
    """The run as the plugin at config key `user` sees it."""
    today, trains = prepared.today, prepared.trains
    found = context_for(user, prepared.config, prepared.shared, tell, prepared.rank, today, trains=trains)
    tokenizer, stop_ids = prepared.renderer.student.tokenizer, prepared.sampling.stop_ids
    return replace(found, run_dir=run_dir, plan=prepared.plan, tokenizer=tokenizer, stop_ids=stop_ids)
