"""What the engine itself measures of a step, by the same names on every backend, and the completions that it keeps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from distillkit.frozen import require_numbers
from distillkit.loop.batch_maker import WeighedBatch
from distillkit.loop.ledger import failed_by_teacher
from distillkit.loop.route_headroom import RouteHeadroom
from distillkit.loop.route_metrics import route_metrics
from distillkit.loop.training import Trained
from distillkit.loop.window import Scheduler
from distillkit.metrics import step_metrics
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.records import ScoredRollout
from distillkit.roles.attribution import attribute_to
from distillkit.roles.returned import returned
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.run_directory.run_files import RunFiles
from distillkit.run_directory.sample_record import sample_record


@dataclass(frozen=True, slots=True)
class StepReport:
    """Metrics and samples of steps, besides what the training itself gives."""

    prepared: PreparedRun
    scheduler: Scheduler
    files: RunFiles
    headroom: RouteHeadroom = field(default_factory=RouteHeadroom)

    def metrics(self, trained: Trained) -> dict[str, float]:
        """Tokens, gaps, routes, requests in flight, completions trained and failed, seconds, what plugins measured."""
        outcomes = trained.outcomes
        teachers, peaks = self.prepared.pipeline.routed_to, self.scheduler.inflight.read_peaks()
        inflight = {f"teacher_route/{teacher.slug}/inflight": float(peaks[teacher.name]) for teacher in teachers}
        routes = route_metrics(outcomes.scored, failed_by_teacher(outcomes.lost), teachers, trained.batches)
        return {
            **self._measured_by_plugins(),
            **routes,
            **self.headroom.metrics(routes),
            **inflight,
            "completions/trained": float(len(outcomes.scored)),
            "completions/failed": float(len(outcomes.lost)),
            "time/sample": outcomes.sample_seconds,
            "time/score": outcomes.score_seconds,
            **step_metrics(outcomes.scored, trained.batches),
        }

    def _measured_by_plugins(self) -> dict[str, float]:
        measured: dict[str, float] = {}
        sources: list[Sampler | Scorer] = [self.scheduler.sampler, *self.scheduler.scorers.values()]
        for source in sources:
            found = returned(source, "metrics", Mapping, source.metrics)
            with attribute_to(source, "in metrics()"):
                require_numbers(found)
            measured |= found
        return measured

    async def keep_samples(self, step: int, scored: Sequence[ScoredRollout], batches: Sequence[WeighedBatch]) -> None:
        """Write some completions of each route, as they will be trained on, every `sample_every` steps."""
        train = self.prepared.config.train
        if not train.sample_every or step % train.sample_every:
            return
        by_route: dict[str, list[ScoredRollout]] = {}
        for completion in scored:
            by_route.setdefault(completion.prompts.route.label, []).append(completion)
        kept = [each for completions in by_route.values() for each in completions[: train.samples_per_route]]
        tokenizer, topk = self.prepared.renderer.student.tokenizer, train.samples_topk

        def records() -> Iterator[dict[str, JsonValue]]:
            data = {datum.key: datum for weighed in batches for datum in weighed.batch.datums}
            for each in kept:
                about: dict[str, JsonValue] = {"step": step, "split": "train"}
                yield about | sample_record(each, tokenizer, topk, data.get(each.key))

        await self.files.write_samples(records)
