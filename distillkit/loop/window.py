"""Sampling and scoring of one window of rows, with exactly one outcome for every request.

Scoring starts when a completion is there, not when all are; results come back in data order, whatever the order of
arrival. A window's rows are bounded by the step, so nothing piles up: the engine starts a new window only after an
old one was trained.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from distillkit.errors import PluginError
from distillkit.events import PhaseProgress
from distillkit.loop.closing import Closing
from distillkit.loop.outcomes import LostCompletion, Outcomes, WindowRequests
from distillkit.records import Failure, Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.roles.attribution import attribute_to
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.tokenizer import unknown_id
from distillkit.types import Prompts, SampleKey

Phase = Literal["sample", "score"]


@dataclass(slots=True)
class InflightCounts:
    """How many score requests each teacher has unanswered now, and had at most since the last reading."""

    inflight: dict[str, int]
    peak: dict[str, int]

    def change(self, teacher: str, by: int) -> None:
        """Count requests that start (positive) or end."""
        self.inflight[teacher] += by
        self.peak[teacher] = max(self.peak[teacher], self.inflight[teacher])

    def read_peaks(self) -> dict[str, int]:
        """The peaks since the last call."""
        peaks, self.peak = self.peak, dict(self.inflight)
        return peaks


class Scheduler:
    """Starts windows on one sampler and the run's scorers."""

    def __init__(
        self,
        sampler: Sampler,
        scorers: Mapping[str, Scorer],
        progress: Callable[[PhaseProgress], None],
        vocabulary: int | None = None,
    ) -> None:
        """`scorers` by teacher name; `progress` hears of every outcome; ids are below `vocabulary`, where given."""
        self.vocabulary = vocabulary
        self.sampler = sampler
        self.scorers = scorers
        self.progress = progress
        self.gauges = InflightCounts(dict.fromkeys(scorers, 0), dict.fromkeys(scorers, 0))

    def start(self, work: WindowRequests) -> "Window":
        """Sample and score `work` in the background."""
        return Window(work, self, self.sampler.sample(work.requests))

    def rescore(self, work: WindowRequests, rollouts: Sequence[Rollout]) -> "Window":
        """Score completions that are there already."""
        return Window(work, self, _replay(rollouts))


class Window:
    """One window in prepared."""

    def __init__(self, work: WindowRequests, scheduler: Scheduler, source: AsyncIterator[Rollout | Failure]) -> None:
        """Start at once; needs a running event loop."""
        self.work = work
        self._schedule = scheduler
        self._source = source
        self._place = {request.key: i for i, request in enumerate(work.requests)}
        self._rollouts: dict[SampleKey, Rollout] = {}
        self._scores: dict[SampleKey, dict[str, Score]] = {}
        self._lost: dict[SampleKey, LostCompletion] = {}
        self._drawn = 0
        self._answered = 0
        self._started = time.perf_counter()
        self._score_started: float | None = None
        self._sample_seconds = 0.0
        self._score_ended = self._started
        self._score_total = 0
        self._sampled = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def until_sampled(self) -> None:
        """Wait until no more completions will be drawn, so that the sampler may change its weights."""
        waiter = asyncio.ensure_future(self._sampled.wait())
        await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self._task.done():
            self._task.result()

    async def finished(self) -> Outcomes:
        """Wait for every outcome."""
        await self._task
        scored = [
            ScoredRollout(self._rollouts[key], self._prompts(key), self._scores[key])
            for key in self._place
            if key not in self._lost
        ]
        score_seconds = 0.0 if self._score_started is None else self._score_ended - self._score_started
        rollouts = tuple(self._rollouts[key] for key in self._place if key in self._rollouts)
        return Outcomes(tuple(scored), tuple(self._lost.values()), rollouts, self._sample_seconds, score_seconds)

    async def cancel(self) -> None:
        """Stop, and wait until everything has stopped."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _prompts(self, key: SampleKey) -> Prompts:
        return self.work.prompts[key.row_id, key.epoch]

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as scoring, Closing(self._source):
                waiting = await self._sample(scoring)
                for teacher, requests in waiting.items():
                    scoring.create_task(self._score(teacher, sorted(requests, key=lambda r: self._place[r.key])))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        self._score_ended = time.perf_counter()

    async def _sample(self, scoring: asyncio.TaskGroup) -> dict[str, list[ScoreRequest]]:
        """Take completions as they come; return the score requests of scorers that want a window at once."""
        waiting: dict[str, list[ScoreRequest]] = {}
        with attribute_to(self._schedule.sampler):
            async for outcome in self._source:
                rollout = self._accept_sample(outcome)
                self._progress("sample", self._drawn, len(self._place))
                for request in self._score_requests(rollout) if rollout is not None else ():
                    if self._schedule.scorers[request.teacher].whole_windows:
                        waiting.setdefault(request.teacher, []).append(request)
                    else:
                        scoring.create_task(self._score(request.teacher, [request]))
        self._require_all_answered()
        self._sample_seconds = time.perf_counter() - self._started
        self._sampled.set()
        return waiting

    def _score_requests(self, rollout: Rollout) -> list[ScoreRequest]:
        prompts = self._prompts(rollout.key)
        requests = [ScoreRequest(rollout, teacher, prompts.teachers[teacher]) for teacher in prompts.route.teachers]
        self._score_total += len(requests)
        return requests

    def _accept_sample(self, outcome: Rollout | Failure) -> Rollout | None:
        key = outcome.request.key
        if key not in self._place or key in self._rollouts or key in self._lost:
            sampler = type(self._schedule.sampler).__name__
            raise PluginError(f"{sampler} answered {key} twice, or was never asked; one outcome a request")
        self._drawn += 1
        if isinstance(outcome, Failure):
            self._lost[key] = LostCompletion(key, "sample", outcome.reason, outcome.retryable)
            return None
        wanted = self.work.policy_version
        if wanted is not None and outcome.policy_version != wanted:
            reason = f"sampled by policy version {outcome.policy_version}, this step trains version {wanted}"
            self._lost[key] = LostCompletion(key, "sample", reason, retryable=True)
            return None
        unknown = unknown_id(outcome, self._schedule.vocabulary)
        if unknown is not None:
            self._lost[key] = LostCompletion(key, "sample", unknown, retryable=False)
            return None
        self._rollouts[key] = outcome
        self._scores[key] = {}
        return outcome

    def _require_all_answered(self) -> None:
        if self._drawn == len(self._place):
            return
        missing = [key for key in self._place if key not in self._rollouts and key not in self._lost]
        sampler = type(self._schedule.sampler).__name__
        raise PluginError(f"{sampler} gave no outcome for {len(missing)} of {len(self._place)} requests: {missing[0]}")

    async def _score(self, teacher: str, requests: Sequence[ScoreRequest]) -> None:
        """Ask one teacher's scorer, and hold it to one outcome a request."""
        scorer, gauges = self._schedule.scorers[teacher], self._schedule.gauges
        unanswered = {request.key for request in requests}
        self._score_started = self._score_started or time.perf_counter()
        gauges.change(teacher, len(requests))
        try:
            with attribute_to(scorer, f"for teacher {teacher!r}"):
                async with Closing(scorer.score(requests)) as outcomes:
                    async for outcome in outcomes:
                        self._accept_score(outcome, teacher, unanswered)
                        gauges.change(teacher, -1)
                        self._progress("score", self._answered, self._score_total)
        finally:
            gauges.change(teacher, -len(unanswered))
        if unanswered:
            raise PluginError(
                f"{type(scorer).__name__} gave no outcome for {len(unanswered)} of {len(requests)} requests to teacher "
                f"{teacher!r}: {min(unanswered)}"
            )

    def _accept_score(self, outcome: Score | Failure, teacher: str, unanswered: set[SampleKey]) -> None:
        key = outcome.request.key
        if key not in unanswered:
            raise PluginError(f"the scorer of teacher {teacher!r} answered {key} twice, or was never asked")
        unanswered.remove(key)
        self._answered += 1
        if isinstance(outcome, Score):
            self._scores[key][teacher] = outcome
        elif key not in self._lost:
            self._lost[key] = LostCompletion(key, "score", outcome.reason, outcome.retryable, teacher)

    def _progress(self, phase: Phase, done: int, total: int) -> None:
        self._schedule.progress(PhaseProgress(phase, done, total))


@dataclass(frozen=True, slots=True, eq=False)
class KeptWindow:
    """A window that came to its end before the run was resumed."""

    work: WindowRequests
    outcomes: Outcomes

    async def until_sampled(self) -> None:
        """It is."""

    async def finished(self) -> Outcomes:
        """What the checkpoint held."""
        return self.outcomes

    async def cancel(self) -> None:
        """Nothing is under way."""


async def _replay(rollouts: Sequence[Rollout]) -> AsyncIterator[Rollout | Failure]:
    for rollout in rollouts:
        yield rollout
