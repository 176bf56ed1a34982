"""A run from the command line: its directory first, what it came to and what to do next last."""

import asyncio
import logging
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path

from distillkit.cli.reporting import ERR, OUT
from distillkit.cli.signals import Stopping
from distillkit.cli.working import Working
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.files.os_errors import explain_os_errors
from distillkit.loop.engine import Engine
from distillkit.loop.execute import NEW_RUN, execute
from distillkit.ranks import Rank
from distillkit.registry import Registry
from distillkit.roles.sink import Sink
from distillkit.run_directory.checkpoint import checkpoints, step_of
from distillkit.run_directory.directory import REPORT, require_writable_path, run_directory
from distillkit.run_directory.result import RunResult
from distillkit.run_directory.run_start import RunStart
from distillkit.verdict.verdict_sentences import verdict_lines

log = logging.getLogger("distillkit")
CHECKING = "checking data, plugins and models ..."
SILENCE_SECONDS = 5.0
"""How long a run waits for a sink to be silent."""


def run_and_report(
    config: RunConfig,
    registry: Registry,
    words: list[str],
    rank: Rank,
    start: RunStart = NEW_RUN,
    *,
    quiet: bool = False,
) -> RunResult:
    """Run, with the run directory as the first line and what to do next as the last.

    `words` are what stands behind `distillkit run`, but for what `start` says.
    """
    run_dir = run_directory(config)
    OUT.print(f"run directory: {run_dir}")
    if quiet:
        silence(config.sinks)
    elif not ERR.is_terminal:  # there `Working` says it
        OUT.print(CHECKING)
    require_writable_path(run_dir)
    earlier = _stamp(run_dir / "summary.json")
    try:
        result = _done(config, registry, rank, start, quiet=quiet)
    except (Exception, KeyboardInterrupt) as error:
        if _stamp(run_dir / "summary.json") != earlier:  # else this run did not begin, and the log is another's
            error.add_note(f"log: {run_dir / 'run.log'}")
            saved = checkpoints(run_dir)
            if saved and not (start.resume and isinstance(error, InputError)):
                command = shlex.join([*rank.launch_command, "run", *words, "--resume"])  # on a line that can be copied
                several = rank.host_count > 1
                where = " here, and on each other host with its own --node-rank" if several else ""
                error.add_note(f"go on after step {step_of(saved[-1])} with{where}:\n  {command}")
        raise
    OUT.print(result.last_line)
    OUT.print(f"{result.adapter_path.name}: {result.adapter_path} (its README.md shows how to load it)")
    if any(REPORT in sink.writes for sink in config.sinks) and (run_dir / REPORT).is_file():
        OUT.print(f"report: {run_dir / REPORT}")
    OUT.print("\n".join(verdict_lines(result.verdict)), highlight=False, markup=False)
    return result


def silence(sinks: Sequence[Sink]) -> None:
    """Have sinks show nothing; one that fails at that, or does not return, ends nothing."""
    for sink in sinks:
        thread = threading.Thread(target=_silence, args=[sink], daemon=True)
        thread.start()
        thread.join(SILENCE_SECONDS)


def _silence(sink: Sink) -> None:
    try:
        sink.silence()
    except Exception:
        log.exception("sink %r failed in silence()", sink.name)


def _done(config: RunConfig, registry: Registry, rank: Rank, start: RunStart, *, quiet: bool) -> RunResult:
    """Run to the end, or to a signal."""
    stopping = Stopping(rank=rank)
    with Working(CHECKING, quiet=quiet) as working:

        def begun(engine: Engine) -> None:
            working.stop()  # from here on a sink shows what is done
            stopping.watch(engine)

        with explain_os_errors():  # not even an event loop can be made without a file that is open
            return asyncio.run(stopping.guard(execute(config, registry, start, rank, begun)))


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Differs once a file was written to or replaced."""
    if not path.is_file():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
