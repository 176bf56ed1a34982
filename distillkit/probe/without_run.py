"""A probe by itself, as `distillkit check --probe` has it: plugins are opened, measured and closed."""

import asyncio
from collections.abc import Callable

from distillkit.events import Notice
from distillkit.loop.unless_broken import unless_broken
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.probe.measure import Probe
from distillkit.probe.open_run import opened
from distillkit.probe.report import ProbeReport
from distillkit.probe.rows import spread_rows


async def probed(prepared: PreparedRun, tell: Callable[[Notice], None]) -> ProbeReport:
    """The report on a prepared run, which is not to be run afterwards. Raises as `opened` and `Probe.measured` do."""
    async with opened(prepared, tell):
        prompts = await asyncio.to_thread(spread_rows, prepared, prepared.config.probe.rows)
        figures = await unless_broken(Probe(prepared, prompts).measured(), prepared.config.student)
    return ProbeReport.of(figures)
