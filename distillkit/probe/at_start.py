"""The probe at the start of a run, where it costs little beside the run."""

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

from distillkit.errors import InputError
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.probe.measure import Probe, least_tokens
from distillkit.probe.report import FILE, ProbeReport
from distillkit.probe.rows import spread_rows
from distillkit.roles.attribution import attribute_to
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.run_plan import Plan

log = logging.getLogger("distillkit")
SHARE = 0.05
"""Of the tokens that a run plans to sample, score and train: what `probe.at_start: auto` may take at most."""


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Probes before anything is trained. Seeds and requests are its own, so that no number of the run depends on it."""

    prepared: PreparedRun
    run_dir: Path
    dispatcher: SinkDispatcher

    async def run(self, step: int) -> None:
        """Probe the published policy of `step`, as `probe.at_start` says; a run that goes on was probed before.

        What was found is in `probe.json`, and the sinks hear it. Raises InputError if the run must not be trained.
        """
        options = self.prepared.config.probe
        if options.at_start == "never" or (step and options.at_start == "auto"):
            return
        always = options.at_start == "always"
        if not (always or self._is_affordable(least_tokens(self.prepared), exact=False)):
            return
        probe = Probe(self.prepared, await asyncio.to_thread(spread_rows, self.prepared, options.rows))
        if not (always or self._is_affordable(probe.tokens, exact=True)):
            return
        started = time.perf_counter()
        self.dispatcher.phase("probe")
        report = ProbeReport.of(await probe.measured())
        self._forget_metrics()
        report.write(self.run_dir)
        self._tell(report, time.perf_counter() - started)

    def _is_affordable(self, tokens: int, *, exact: bool) -> bool:
        planned = planned_tokens(self.prepared.plan)
        affordable = tokens <= SHARE * planned
        if not affordable:
            log.info(
                "not probed: it would take %s tokens%s, %.1f%% of the plan (%d%% at most); "
                "`distillkit check CONFIG --probe` measures",
                f"{tokens:,}",
                "" if exact else " or more",
                100 * tokens / planned if planned else math.inf,
                round(100 * SHARE),
            )
        return affordable

    def _tell(self, report: ProbeReport, seconds: float) -> None:
        path = self.run_dir / FILE
        if report.refused:
            found = "\n".join(f"- {verdict.message}" for verdict in report.refused)
            raise InputError(
                f"the probe refuses this run, and nothing was trained:\n{found}\n"
                f"The figures are in {path}, and `distillkit check CONFIG --probe` measures again. To train all the "
                "same, set probe.at_start: never"
            )
        for verdict in report.verdicts:
            if verdict.level == "warn":
                self.dispatcher.warn(f"probe: {verdict.message}")
        self.dispatcher.notice(f"probe: {report.did}, {seconds:.1f} s; figures in {path}")

    def _forget_metrics(self) -> None:
        """What plugins counted of the probe's requests is no step's."""
        asked: list[Sampler | Scorer] = [self.prepared.plugins.sampler, *self.prepared.plugins.scorers.values()]
        for plugin in asked:
            with attribute_to(plugin, "in metrics()"):
                plugin.metrics()


def planned_tokens(plan: Plan) -> int:
    """All that a run samples, scores and trains, evaluations counted in."""
    return plan.sample_tokens + plan.score_tokens + plan.train_tokens + plan.eval_sample_tokens + plan.eval_score_tokens
