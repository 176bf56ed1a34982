"""Runs every evaluator on one policy version, and keeps the results."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from distillkit.events import EvalResult, EvalStage, Evaluated
from distillkit.loop.evaluation import Evaluation
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.loop.window import Scheduler
from distillkit.metrics import eval_metrics, finite
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.roles.attribution import attribute_to, require_returned
from distillkit.run_directory.run_files import RunFiles
from distillkit.types import Prompts


@dataclass(slots=True)
class EvaluatorRunner:
    """Runs the evaluators on the held-out rows, which are rendered once."""

    prepared: PreparedRun
    scheduler: Scheduler
    files: RunFiles
    dispatcher: SinkDispatcher
    summaries: dict[EvalStage, Mapping[str, JsonValue]] = field(default_factory=dict, init=False)
    """The newest of each stage, as `summary.json` holds it."""
    _prompts: Sequence[Prompts] | None = field(default=None, init=False)

    async def run(self, stage: EvalStage, step: int, policy_version: int) -> dict[str, float]:
        """Let every evaluator measure the published policy; return the metrics of the step, by their full names."""
        config, teachers = self.prepared.config, self.prepared.pipeline.teachers
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
        results: dict[str, EvalResult] = {}
        for evaluator in config.evaluators:
            with attribute_to(evaluator, "in evaluate()"):
                result = await evaluator.evaluate(evaluation)
            require_returned(evaluator, result, EvalResult, "evaluate()")
            results[evaluator.name] = result
        self.summaries[stage] = eval_summary(results)
        examples = evaluation.examples(config.train.samples_per_route)
        if config.train.sample_every:
            self.files.write_samples(step, "heldout", examples, self.prepared.renderer.student.tokenizer)
        self.dispatcher.emit(Evaluated(stage, step, results, examples))
        return eval_metrics(results, teachers) | {"time/eval": time.perf_counter() - started}

    async def _held_out_prompts(self) -> Sequence[Prompts]:
        if self._prompts is None:
            self._prompts = await asyncio.to_thread(self.prepared.render, self.prepared.eval_rows)
        return self._prompts


def eval_summary(results: Mapping[str, EvalResult]) -> dict[str, JsonValue]:
    """The metrics of all evaluators, and below `routes` those of each route, as `summary.json` holds them."""
    summary: dict[str, JsonValue] = {}
    routes: dict[str, dict[str, JsonValue]] = {}
    for result in results.values():
        summary |= {name: finite(value) for name, value in result.metrics.items()}
        for route, values in result.routes.items():
            routes.setdefault(route, {}).update({name: finite(value) for name, value in values.items()})
    return {**summary, "routes": dict(routes)}
