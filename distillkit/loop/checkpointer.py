"""Saving where a run stands, and going on from there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from distillkit.loop.evaluator_runner import EvaluatorRunner
from distillkit.loop.ledger import Ledger, Totals
from distillkit.loop.policy_sync import PolicySync
from distillkit.loop.training import WindowTrainer
from distillkit.loop.windows_ahead import WindowsAhead
from distillkit.metrics import finite
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.run_directory import checkpoint
from distillkit.run_directory.run_files import RunFiles


@dataclass(frozen=True, slots=True)
class Checkpointer:
    """What a checkpoint holds, gathered from the parts of the engine, and given back to them."""

    prepared: PreparedRun
    files: RunFiles
    ledger: Ledger
    policy: PolicySync
    windows: WindowsAhead
    trainer: WindowTrainer
    evaluations: EvaluatorRunner
    identity: Mapping[str, JsonValue]
    """The run's identity, as `identity_of` gives it."""

    async def save(self, step: int, train_seconds: float, metrics: Mapping[str, float]) -> None:
        """Write a checkpoint of `step`. What samples is its policy then, and what is in flight is sampled and scored.

        `metrics` is the step's line of `metrics.jsonl`, which is written after it. Raises RunFailedError if the disk
        is full.
        """
        if self.policy.version != step:
            await self.policy.publish(step, self.windows.in_flight)
        state = checkpoint.EngineState(
            step=step,
            totals=self.ledger.totals.to_save(),
            train_seconds=train_seconds,
            before=self.evaluations.figures.get("before"),
            bad_in_a_row=self.trainer.bad_in_a_row,
            metrics={name: finite(value) for name, value in metrics.items()},
            files=self.files.lengths() | self.ledger.lengths(),
            in_flight=await self.windows.saved(),
            identity=self.identity,
            today=self.prepared.today.isoformat(),
        )
        config, plugins = self.prepared.config, self.prepared.plugins.by_key
        await checkpoint.save(self.files.run_dir, state, config.student, plugins, config.train.keep_last)

    async def restore(self, path: Path, state: checkpoint.EngineState) -> None:
        """Go back to where a checkpoint stands. What was saved after it is of no use any more, and is removed."""
        checkpoint.forget_after(self.files.run_dir, state.step)
        await checkpoint.load(path, self.prepared.config.student, self.prepared.plugins.by_key)
        self.files.rewind(state.files)
        self.ledger.rewind(state.files)
        self.ledger.totals = Totals.restored(state.totals)
        self.windows.kept = list(state.in_flight)
        self.trainer.bad_in_a_row = state.bad_in_a_row
        self.files.write_metrics(state.step, state.metrics)
        if state.before is not None:
            self.evaluations.figures["before"] = state.before
