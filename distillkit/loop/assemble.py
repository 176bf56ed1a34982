"""The parts of an engine, connected for one run; and the same for a run that goes on."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from distillkit.loop.batch_maker import BatchMaker
from distillkit.loop.checkpointer import Checkpointer
from distillkit.loop.engine import Engine
from distillkit.loop.evaluator_runner import EvaluatorRunner
from distillkit.loop.gradient_monitor import GradientMonitor
from distillkit.loop.guards import Guards
from distillkit.loop.ledger import Ledger
from distillkit.loop.policy_sync import PolicySync
from distillkit.loop.route_gradients import RouteGradients
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.loop.step_report import StepReport
from distillkit.loop.training import MismatchMonitor, WindowTrainer
from distillkit.loop.window import Scheduler
from distillkit.loop.windows_ahead import WindowsAhead
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.probe.at_start import StartProbe
from distillkit.run_directory.checkpoint import EngineState
from distillkit.run_directory.run_files import RunFiles, read_metrics
from distillkit.tokenizer import vocabulary_size


def assemble(
    prepared: PreparedRun,
    files: RunFiles,
    ledger: Ledger,
    dispatcher: SinkDispatcher,
    identity: Mapping[str, JsonValue],
) -> Engine:
    """The engine of a run whose plugins are not open yet; `identity` is what its checkpoints say that it is."""
    config, plugins, warn = prepared.config, prepared.plugins, dispatcher.warn
    vocabulary = vocabulary_size(prepared.renderer.student.tokenizer)
    scheduler = Scheduler(plugins.sampler, plugins.scorers, dispatcher.emit, vocabulary, prepared.turn_ends)
    policy = PolicySync(config.student, plugins.sampler, plugins.scorers)
    windows = WindowsAhead(prepared, scheduler, policy, ledger, warn)
    own_sampler = config.student.sampler is None
    mismatch = MismatchMonitor(config.train.warn_logprob_mismatch, warn, own_sampler)
    train, taken = config.train, config.student.loss_functions().get(config.loss.loss_function)
    maker = BatchMaker(config.loss, taken, train.num_substeps, train.normalization, train.weightings)
    gradients = RouteGradients(config.student, train.route_gradients_every, prepared.pipeline.routed_to, warn)
    trainer = WindowTrainer(
        config.student, maker, train.max_bad_steps, mismatch, GradientMonitor(warn), warn, gradients
    )
    evaluations = EvaluatorRunner(prepared, scheduler, files, dispatcher)
    return Engine(
        prepared,
        files,
        ledger,
        dispatcher,
        policy,
        StartProbe(prepared, files.run_dir, dispatcher),
        windows,
        trainer,
        Guards(config.guards, warn),
        evaluations,
        StepReport(prepared, scheduler, files),
        Checkpointer(prepared, files, ledger, policy, windows, trainer, evaluations, dispatcher, identity),
    )


async def resume(engine: Engine, path: Path, state: EngineState) -> None:
    """Let a new engine, whose plugins are open, go on from a checkpoint."""
    await engine.checkpointer.restore(path, state)
    engine.step, engine.train_seconds = state.step, state.train_seconds
    engine.guards.remember(before := read_metrics(engine.files.run_dir))
    if not state.followed_up:
        engine.to_follow_up = {name: value for name, value in state.metrics.items() if value is not None}
    engine.report.headroom.remember([*before, *([] if state.followed_up else [state.metrics])])
    engine.dispatcher.notice(f"resumed after step {state.step} from {path}")
