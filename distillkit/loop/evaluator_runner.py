"""Runs every evaluator on one policy version, and keeps the results."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from distillkit.errors import PluginError
from distillkit.events import EvalResult, EvalStage, Evaluated, Measure, PolicyFigures
from distillkit.loop.evaluation import Evaluation
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.loop.window import Scheduler
from distillkit.metrics import eval_metrics, finite
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.records import ScoredRollout
from distillkit.roles.attribution import named
from distillkit.roles.evaluator import Evaluator
from distillkit.roles.returned import awaited, require_returned
from distillkit.run_directory.run_files import RunFiles
from distillkit.run_directory.sample_record import sample_record
from distillkit.types import Prompts
from distillkit.verdict.completion_figures import COMPLETION_MEASURES, COMPLETIONS, completion_figures
from distillkit.verdict.run_verdict import Missing
from distillkit.verdict.verdict_of import Steps, verdict_of
from distillkit.verdict.verdict_sentences import Verdict


@dataclass(slots=True)
class EvaluatorRunner:
    """Runs the evaluators on the held-out rows, which are rendered once."""

    prepared: PreparedRun
    scheduler: Scheduler
    files: RunFiles
    dispatcher: SinkDispatcher
    figures: dict[EvalStage, PolicyFigures] = field(default_factory=dict, init=False)
    """The newest of each stage."""
    _prompts: Sequence[Prompts] | None = field(default=None, init=False)

    async def run(self, stage: EvalStage, step: int, policy_version: int) -> dict[str, float]:
        """Let every evaluator measure the published policy; return the metrics of the step, by their full names."""
        config, teachers = self.prepared.config, self.prepared.pipeline.routed_to
        if not config.evaluators:
            return {}
        started = time.perf_counter()
        evaluation = Evaluation(
            await self._held_out_prompts(),
            teachers,
            self.scheduler,
            self.prepared.sampling,
            config.seed,
            stage,
            step,
            policy_version,
        )
        results = await run_evaluators(
            config.evaluators, evaluation, lambda name: self.dispatcher.phase("evaluate", name)
        )
        before = self.figures.get("before")
        self.figures[stage] = PolicyFigures(step, results, evaluation.route_labels)
        examples = evaluation.examples(config.train.samples_per_route)
        if config.train.sample_every:
            await self.files.write_samples(lambda: self._records(step, stage, examples))
        measures = measures_of(config.evaluators, results)
        self.dispatcher.emit(
            Evaluated(stage, step, results, examples, {} if before is None else before.results, measures)
        )
        return eval_metrics(results, teachers) | {"time/eval": time.perf_counter() - started}

    def verdict(self, steps: Steps) -> Verdict:
        """What the newest evaluation says beside the one before training; `steps` is what training itself measured."""
        config, before = self.prepared.config, self.figures.get("before")
        after = self.figures.get("after") or self.figures.get("during")
        measures = {} if after is None else measures_of(config.evaluators, after.results)
        missing: Missing | None = None
        if not config.evaluators:
            missing = "evaluators" if config.data.holds_out else "held-out rows"
        return verdict_of(before, after, measures, self.prepared.pipeline.routed_to, steps, missing)

    def _records(
        self, step: int, stage: EvalStage, completions: Sequence[ScoredRollout]
    ) -> Iterator[dict[str, JsonValue]]:
        tokenizer, topk = self.prepared.renderer.student.tokenizer, self.prepared.config.train.samples_topk
        about: dict[str, JsonValue] = {"step": step, "split": "heldout", "stage": stage}
        return (about | sample_record(completion, tokenizer, topk) for completion in completions)

    async def _held_out_prompts(self) -> Sequence[Prompts]:
        if self._prompts is None:
            self._prompts = await asyncio.to_thread(self.prepared.render, self.prepared.eval_rows)
        return self._prompts


def measures_of(evaluators: Sequence[Evaluator], results: Mapping[str, EvalResult]) -> dict[str, Measure]:
    """What people read of results: of evaluators that do not say it, all metrics by their own names."""
    found: dict[str, Measure] = {}
    for evaluator in evaluators:
        found |= evaluator.measures or {
            name: Measure(name.replace("_", " ")) for name in _metric_names(results.get(evaluator.name))
        }
    return {**found, **COMPLETION_MEASURES}


def _metric_names(result: EvalResult | None) -> Iterator[str]:
    if result is not None:
        yield from result.metrics
        for values in result.routes.values():
            yield from values


async def run_evaluators(
    evaluators: Sequence[Evaluator], evaluation: Evaluation, begins: Callable[[str], None] = lambda name: None
) -> dict[str, EvalResult]:
    """What each finds of one policy version, by its name; `begins` hears which one it is.

    What the engine measures of completions itself is there where they were asked for.
    """
    results: dict[str, EvalResult] = {}
    for evaluator in evaluators:
        begins(evaluator.name)
        result = await awaited(evaluator, "evaluate", evaluator.evaluate(evaluation))
        require_returned(evaluator, result, EvalResult, "evaluate()")
        _require_finite(evaluator, result)
        unknown = {row for values in result.by_row.values() for row in values} - evaluation.route_labels.keys()
        if unknown:
            raise PluginError(
                f"evaluator {evaluator.name!r}: `by_row` names {min(unknown)!r}, which is no held-out row's id"
            )
        results[evaluator.name] = result
    completions = evaluation.sampled()
    found = {COMPLETIONS: completion_figures(completions, evaluation.route_labels)} if completions else {}
    return results | found


def _require_finite(evaluator: Evaluator, result: EvalResult) -> None:
    """Raise PluginError, with the class: NaN and infinity compare with nothing, and a metric not known is left out."""
    found = [*result.metrics.items(), *(each for values in result.routes.values() for each in values.items())]
    for name, by_row in result.by_row.items():
        found += [(f"by_row of {name}", number) for value in by_row.values() for number in (value.total, value.count)]
    for name, number in found:
        if not math.isfinite(number):
            raise PluginError(
                f"{named(evaluator)}: evaluate() found {name!r} to be {float(number)}, which is no finite number; "
                "leave out a metric that is not known"
            )


def eval_summary(results: Mapping[str, EvalResult]) -> dict[str, JsonValue]:
    """The metrics of all evaluators, and below `routes` those of each route, as `summary.json` holds them."""
    summary: dict[str, JsonValue] = {}
    routes: dict[str, dict[str, JsonValue]] = {}
    for result in results.values():
        summary |= {name: finite(value) for name, value in result.metrics.items()}
        for route, values in result.routes.items():
            routes.setdefault(route, {}).update({name: finite(value) for name, value in values.items()})
    return {**summary, "routes": dict(routes)}
