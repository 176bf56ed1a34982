"""The loop: rows are sampled, scored, trained and published. The rest is when to look, and when to save."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distillkit.events import StepFinished
from distillkit.loop.checkpointer import Checkpointer
from distillkit.loop.evaluator_runner import EvaluatorRunner
from distillkit.loop.final_weights import export_weights
from distillkit.loop.guards import Guards, stop_error
from distillkit.loop.ledger import Ledger
from distillkit.loop.policy_sync import PolicySync
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.loop.step_report import StepReport
from distillkit.loop.training import WindowTrainer
from distillkit.loop.window import AnyWindow
from distillkit.loop.windows_ahead import WindowsAhead
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.probe.at_start import StartProbe
from distillkit.roles.attribution import one_line_error
from distillkit.run_directory.run_files import RunFiles

FINISHING = "the final weights and their evaluation: all steps are trained, and with these the run is complete"


@dataclass(slots=True)
class Engine:
    """One run, from the first evaluation to the last. The plugins are open when it starts."""

    prepared: PreparedRun
    files: RunFiles
    ledger: Ledger
    dispatcher: SinkDispatcher
    policy: PolicySync
    probe: StartProbe
    windows: WindowsAhead
    trainer: WindowTrainer
    guards: Guards
    evaluations: EvaluatorRunner
    report: StepReport
    checkpointer: Checkpointer
    step: int = 0
    """Steps trained so far."""
    train_seconds: float = 0.0
    exported: Path | None = None
    stop_requested: bool = False
    """Whether the run is to end after the step in hand, with a checkpoint."""
    training: bool = False
    """Whether there is, or comes at once, a step in hand."""
    to_follow_up: Mapping[str, float] | None = None
    """Metrics of the step that a resumed run goes on from, where the run ended before it looked and saved."""

    async def run(self) -> None:
        """Train until the plan is fulfilled, and finish. An exception of a plugin ends the run."""
        self.dispatcher.phase("publish")
        await self.policy.publish(self.step, (), resumed=self.step > 0)
        await self.probe.run(self.step)
        if self.step == 0 and self.prepared.config.evaluators:  # later there is no policy from before training any more
            measured = await self.evaluations.run("before", 0, self.policy.version)
            self.files.write_metrics(0, {"time/unix": time.time(), **measured})
        self.windows.open(self.step + 1, self.ledger.totals.rows_settled)
        ended = "interrupted"
        try:
            if self.to_follow_up is not None:
                self.guards.check(self.to_follow_up)
                await self.look_and_save(dict(self.to_follow_up))
            await self.train_all()
            self.ledger.require_balance()
            if self.exported is None:  # all steps were trained before this process began
                metrics = self.files.take_back_metrics(self.step)
                self.files.write_metrics(self.step, metrics | await self.finish())
        except (Exception, asyncio.CancelledError) as error:
            ended = one_line_error(error) if isinstance(error, Exception) else ended
            with suppress(asyncio.CancelledError):  # a further interrupt: it is given up
                await self.checkpointer.rescue()
            raise
        finally:
            await self.windows.close(self.step + 1, ended)

    async def train_all(self) -> None:
        """One window after another; with steps off policy the next ones are sampled and scored meanwhile."""
        self.training, started = True, time.perf_counter()
        while (window := await self.windows.next()) is not None:
            metrics = await self.train(window, started)
            self.train_seconds += metrics["time/step"]
            await self.look_and_save(metrics)
            if self.stop_requested and self.step < self.prepared.plan.steps:
                raise self.checkpointer.stopped(self.step)
            started = time.perf_counter()
        self.training = False

    async def train(self, window: AnyWindow, started: float) -> dict[str, float]:
        """Train on a window's completions, and publish the new weights; return the step's metrics."""
        self.dispatcher.phase("sample")
        scored = await self.windows.outcomes(window, self.step + 1)
        self.ledger.require_few_failures(window.requests, scored)
        self.dispatcher.phase("train")
        scored_at = time.perf_counter()
        batches = await self.trainer.batches(scored)
        await self.report.keep_samples(self.step + 1, scored.scored, batches)
        trained = await self.trainer.train(scored, batches, self.step + 1)
        trained_at = time.perf_counter()
        self.step += 1
        self.windows.trained(window, self.step, trained.outcomes)
        times = {"time/unix": time.time(), "time/train": trained_at - scored_at, "time/step": trained_at - started}
        metrics = {**trained.metrics, **self.report.metrics(trained), **times}
        self.guards.check(metrics)
        self.checkpointer.mark(self.step, self.train_seconds + metrics["time/step"], metrics, followed_up=False)
        if self.step % self.prepared.config.train.weight_sync_interval == 0 or self.step == self.prepared.plan.steps:
            self.dispatcher.phase("publish")
            await self.policy.publish(self.step, self.windows.in_flight)
        return metrics | {"time/sync": time.perf_counter() - trained_at, "time/step": time.perf_counter() - started}

    async def look_and_save(self, metrics: dict[str, float]) -> None:
        """Evaluate and save when it is time; what a checkpoint follows is in it, so that a resume repeats nothing."""
        train, last, collapse = self.prepared.config.train, self.step == self.prepared.plan.steps, self.guards.alarm
        self.dispatcher.emit(StepFinished(self.step, metrics))
        try:
            if train.eval_every and self.step % train.eval_every == 0 and not last:
                metrics |= await self.evaluations.run("during", self.step, self.policy.version)
            if last or collapse or self.stop_requested or self.checkpointer.is_due(self.step):
                await self.checkpointer.save(self.step, self.train_seconds, metrics)
            else:
                self.checkpointer.mark(self.step, self.train_seconds, metrics)
            if collapse:
                raise stop_error(collapse)
            if last:
                metrics |= await self.finish()
        finally:
            self.files.write_metrics(self.step, metrics)

    async def finish(self) -> dict[str, float]:
        """Write the final weights for others to use, and evaluate them."""
        if self.stop_requested:
            self.dispatcher.notice(f"stopping after {FINISHING}")
        self.dispatcher.phase("export")
        self.exported = await export_weights(self.prepared.config.student, self.files.run_dir)
        return await self.evaluations.run("after", self.step, self.policy.version)

    def request_stop(self) -> str | None:
        """End after the step in hand. What is waited for; None if none is in hand: then nothing is lost by ending."""
        self.stop_requested = self.training
        if not self.training:
            return None
        return FINISHING if self.step == self.prepared.plan.steps else "the step in hand, with a checkpoint"
