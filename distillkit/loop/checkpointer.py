"""Saving where a run stands, and going on from there."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from distillkit.loop.evaluator_runner import EvaluatorRunner
from distillkit.loop.ledger import Ledger, Totals
from distillkit.loop.policy_sync import PolicySync
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.loop.training import WindowTrainer
from distillkit.loop.windows_ahead import WindowsAhead
from distillkit.metrics import finite
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.roles.attribution import one_line_error
from distillkit.run_directory import checkpoint
from distillkit.run_directory.checkpoint import EngineState
from distillkit.run_directory.plugin_states import PluginStates, states_of
from distillkit.run_directory.resuming import where_a_resume_goes_on
from distillkit.run_directory.rollout_codec import InFlight
from distillkit.run_directory.run_files import RunFiles

log = logging.getLogger("distillkit")


@dataclass(slots=True)
class Checkpointer:
    """What a checkpoint holds, gathered from the parts of the engine, and given back to them."""

    prepared: PreparedRun
    files: RunFiles
    ledger: Ledger
    policy: PolicySync
    windows: WindowsAhead
    trainer: WindowTrainer
    evaluations: EvaluatorRunner
    dispatcher: SinkDispatcher
    identity: Mapping[str, JsonValue]
    """The run's identity, as `identity_of` gives it."""
    _marked: EngineState | None = None
    """Where the run stood after its newest step, but for what is in flight; None: a save holds all that there is."""
    _states: PluginStates = field(default_factory=dict)
    """What the plugins kept then."""
    _unsound: str | None = None
    """Why a run that fails now must not be saved there; None: it may."""
    _saved_at: float = field(default_factory=lambda: time.monotonic())

    def is_due(self, step: int) -> bool:
        """Whether this step is one of `train.save_every`, or `save_every_minutes` have passed.

        The latter only where the weights that sample are those that are trained: between two publishes a save would
        publish earlier than the run does else, and change its numbers.
        """
        train, marked = self.prepared.config.train, self._marked
        if train.save_every and step % train.save_every == 0:
            return True
        late = train.save_every_minutes > 0 and time.monotonic() - self._saved_at >= 60 * train.save_every_minutes
        return late and marked is not None and self.policy.version == marked.step

    def mark(self, step: int, train_seconds: float, metrics: Mapping[str, float], *, followed_up: bool = True) -> None:
        """Remember where the run stands, so that `rescue` can save it until the student trains on.

        `metrics` is the step's line of `metrics.jsonl`, which is written after this. `followed_up`: the step's weights
        are published, and its evaluation is made.
        """
        self._states = states_of(self.prepared.plugins.by_key)
        self._marked = EngineState(
            step=step,
            totals=self.ledger.totals.to_save(),
            train_seconds=train_seconds,
            before=self.evaluations.figures.get("before"),
            bad_in_a_row=self.trainer.bad_in_a_row,
            metrics={name: finite(value) for name, value in metrics.items()},
            files=self.files.lengths() | self.ledger.lengths(),
            in_flight=(),
            identity=self.identity,
            today=self.prepared.today.isoformat(),
            followed_up=followed_up,
        )
        self._unsound = self._why_not(step, followed_up=followed_up)
        self.trainer.moved = False

    def _why_not(self, step: int, *, followed_up: bool) -> str | None:
        """Why a run that goes on from this step would not give the numbers of one that never ended; None: it would."""
        interval = self.prepared.config.train.weight_sync_interval
        if step % interval and step != self.prepared.plan.steps and self.policy.version != step:
            return "it lies between two publishes of the weights (train.weight_sync_interval)"
        if not followed_up and any(scorer.moves() for scorer in self.policy.scorers.values()):
            return "a teacher that follows the student had not heard of it yet"
        return None

    async def save(self, step: int, train_seconds: float, metrics: Mapping[str, float]) -> None:
        """Write a checkpoint of `step`. What samples is its policy then, and what is in flight is sampled and scored.

        `metrics` as in `mark`. Raises RunFailedError if the disk is full.
        """
        self.dispatcher.phase("save")
        if self.policy.version != step:
            await self.policy.publish(step, self.windows.in_flight)
        self.mark(step, train_seconds, metrics)
        marked = self._marked
        in_flight = await self.windows.saved()  # which may fail with a plugin; then a rescue saves what was sampled
        self._unsound = "it could not be written"  # unless the next line comes to its end
        await self._write(in_flight)
        if any(window.unanswered for window in in_flight):
            self._marked = marked  # if that is why the run ends, a rescue saves it again, for a resume to ask again

    async def _write(self, in_flight: Sequence[InFlight]) -> None:
        if self._marked is None:
            raise RuntimeError("there is no step to save")
        config, plugins, started = self.prepared.config, self.prepared.plugins.by_key, time.monotonic()
        self.files.flush()
        self.ledger.flush()
        state = replace(self._marked, in_flight=in_flight)
        path = await checkpoint.save(
            self.files.run_dir, state, config.student, plugins, self._states, config.train.keep_last
        )
        self._marked, self._unsound, self._saved_at = None, None, time.monotonic()
        log.info("checkpoint of step %d: %s, in %.1f s", state.step, path, self._saved_at - started)

    def stopped(self, step: int) -> asyncio.CancelledError:
        """What ends a run that was asked to stop, once it is said that the step is saved, or else left to `rescue`."""
        if self._marked is None:
            self.dispatcher.notice(f"step {step} is saved: a resume goes on after it")
        return asyncio.CancelledError(f"stopped after step {step}, as asked")

    async def rescue(self) -> None:
        """Before a run ends that did not come to its end: save its newest step, where a resume goes on as if it had.

        Whatever comes of that, why the run ends is told in its place.
        """
        marked = self._marked
        if marked is None:
            return
        try:
            why_not = await self._rescued(marked)
        except Exception as error:
            log.exception("saving step %d failed", marked.step)
            why_not = one_line_error(error)
        if why_not is None:
            self.dispatcher.notice(f"step {marked.step}, the last good one, is saved: a resume goes on after it")
        else:
            where = where_a_resume_goes_on(self.files.run_dir)
            self.dispatcher.warn(f"step {marked.step} is not saved: {why_not}; {where}")

    async def _rescued(self, marked: EngineState) -> str | None:
        """Save; or return why that must not be."""
        if self._unsound is not None:
            return self._unsound
        if self.trainer.moved:
            return "the weights may have changed since"
        in_flight = self.windows.rescued(marked.step)
        if in_flight is None:
            return "completions that an older policy was sampling ahead are lost"
        self.dispatcher.notice(f"the run ends; saving step {marked.step} first")
        await self._write(in_flight)  # also by a student that can train no more, while it holds what it trained
        return None

    async def restore(self, path: Path, state: EngineState) -> None:
        """Go back to where a checkpoint stands. What was saved after it is of no use any more, and is removed."""
        checkpoint.forget_after(self.files.run_dir, state.step)
        await checkpoint.load(path, self.prepared.config.student, self.prepared.plugins.by_key)
        self.files.rewind(state.files)
        self.ledger.rewind(state.files)
        self.ledger.totals = Totals.restored(state.totals)
        self.windows.kept = list(state.in_flight)
        self.trainer.bad_in_a_row = state.bad_in_a_row
        if state.followed_up:
            self.files.write_metrics(state.step, state.metrics)
        if state.before is not None:
            self.evaluations.figures["before"] = state.before
