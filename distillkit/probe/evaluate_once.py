"""The evaluators of a config, on weights that are there; nothing is trained, and no file of a run is touched."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.events import EvalResult, EvalStage, Measure, Notice, PhaseProgress
from distillkit.loop.evaluation import Evaluation
from distillkit.loop.evaluator_runner import eval_summary, measures_of, run_evaluators
from distillkit.loop.unless_broken import unless_broken
from distillkit.metrics import eval_metrics
from distillkit.preflight.prepared_run import PreparedRun, prepare_run
from distillkit.probe.open_run import opened
from distillkit.ranks import Rank
from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin
from distillkit.roles.scorer import Scorer
from distillkit.run_directory.checkpoint import day_of
from distillkit.run_directory.identity import changes, identity_of, other_held_out, require_same_student
from distillkit.run_directory.saved_run import SavedWeights, starting_from


@dataclass(frozen=True, slots=True)
class EvaluatedWeights:
    """What the evaluators found of some weights, outside of a run."""

    step: int
    """Optimizer steps in the weights; 0 as the student starts."""
    rows: int
    """Held-out rows."""
    results: Mapping[str, EvalResult]
    """Evaluator name to result."""
    metrics: Mapping[str, float]
    """The same by the names of `metrics.jsonl`."""
    measures: Mapping[str, Measure]
    """What people read: metric name to what it is called."""

    @property
    def summary(self) -> dict[str, JsonValue]:
        """The metrics over all rows, and below `routes` those of each route."""
        return eval_summary(self.results)


def prepare_evaluation(
    config: RunConfig, registry: Registry, weights: SavedWeights | None, tell: Callable[[Notice], None], rank: Rank
) -> PreparedRun:
    """Check everything, as a run does. Raises InputError, also where the weights are another student's."""
    if not config.evaluators:
        raise InputError("evaluators: the config has none; name some, such as evaluators=[reverse_kl]")
    config = starting_from(config, weights)
    began = None if weights is None else day_of(weights.files)
    prepared = prepare_run(config, registry, tell, rank, began, trains=False)
    if weights is not None and weights.state is not None:
        require_same_student(weights.state.identity, config)
    forgotten = [] if weights is None or not weights.exported else list(_keeping_state(prepared))
    if weights is not None and forgotten:
        text = (
            f"{weights.path} holds the student alone: what {', '.join(forgotten)} kept of the run is in its "
            f"checkpoints, and here as at the start, not as after step {weights.step}"
        )
        tell(Notice(text))
    return prepared


def _keeping_state(prepared: PreparedRun) -> Iterator[str]:
    """The plugins that an evaluation uses of which a checkpoint holds something, such as teachers that have moved."""
    for key, plugin in prepared.plugins.by_key.items():
        kept = type(plugin).state is not Plugin.state or type(plugin).tensors is not Plugin.tensors
        if key.startswith(("teachers.", "evaluators.")) and (kept or (isinstance(plugin, Scorer) and plugin.moves())):
            yield f"{key} ({plugin.name})"


def before_training(
    prepared: PreparedRun, weights: SavedWeights | None, tell: Callable[[Notice], None]
) -> Mapping[str, JsonValue] | None:
    """What the run found before it trained, as `summary.json` has it; None where that was another measurement."""
    if weights is None or weights.state is None or weights.state.before is None:
        return None
    then, now = weights.state.identity, identity_of(prepared)
    others = [*(["the held-out rows changed"] if other_held_out(then, now) else []), *changes(then, now)]
    if others:
        tell(Notice(f"not compared with before training: {'; '.join(others)}"))
    return None if others else eval_summary(weights.state.before.results)


async def evaluate_once(
    prepared: PreparedRun,
    weights: SavedWeights | None,
    tell: Callable[[Notice], None],
    progress: Callable[[PhaseProgress], None] = lambda event: None,
) -> EvaluatedWeights:
    """Sample and score the held-out rows with the seeds of every evaluation of the run, and let evaluators measure.

    Raises:
        MissingExtraError: if something has to be installed first.
        RunFailedError: if no completion could be sampled or scored.
    """
    prompts = await asyncio.to_thread(prepared.render, prepared.eval_rows)
    config, teachers = prepared.config, prepared.pipeline.routed_to
    step = 0 if weights is None else weights.step
    stage: EvalStage = "before" if weights is None else "after"
    async with opened(prepared, tell, progress, weights) as run:
        evaluation = Evaluation(
            prompts, teachers, run.scheduler, prepared.sampling, config.seed, stage, step, run.policy_version
        )
        results = await unless_broken(run_evaluators(config.evaluators, evaluation), config.student)
    measures = measures_of(config.evaluators, results)
    return EvaluatedWeights(step, len(prompts), results, eval_metrics(results, teachers), measures)
