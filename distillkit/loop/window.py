"""Sampling and scoring of one window of rows, with exactly one outcome for every request.

Scoring starts when a completion is there, not when all are; results come back in data order, whatever the order of
arrival. A window's rows are bounded by the step, so nothing piles up: the engine starts a new window only after an
old one was trained.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from distillkit.data.turn_end_maps import TurnEndMaps
from distillkit.errors import PluginError
from distillkit.events import PhaseProgress
from distillkit.loop.outcomes import LostCompletion, Outcomes, Stage, WindowRequests
from distillkit.loop.task_groups import closing, first_error
from distillkit.loop.told_progress import ToldProgress
from distillkit.loop.window_results import WindowResults
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.roles.attribution import attribute_to
from distillkit.roles.returned import require_yielded, stream
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer


@dataclass(slots=True)
class InflightCounts:
    """How many score requests each teacher has unanswered now, and had at most since the last reading."""

    inflight: dict[str, int]
    peak: dict[str, int]

    def change(self, teacher: str, by: int) -> None:
        """Count requests that start (positive) or end (negative)."""
        self.inflight[teacher] += by
        self.peak[teacher] = max(self.peak[teacher], self.inflight[teacher])

    def read_peaks(self) -> dict[str, int]:
        """Teacher name to the most since the last call."""
        peaks, self.peak = self.peak, dict(self.inflight)
        return peaks


@dataclass(slots=True)
class Scheduler:
    """Starts windows on one sampler and the run's scorers."""

    sampler: Sampler
    scorers: Mapping[str, Scorer]
    """Teacher name to the scorer of that teacher."""
    progress: Callable[[PhaseProgress], None]
    """Hears how far a window is; see `ToldProgress`."""
    vocabulary: int | None = None
    """Sampled ids are below this number, where it is known."""
    turn_ends: TurnEndMaps = field(default_factory=TurnEndMaps)
    """How teachers whose turns end otherwise read completions."""
    inflight: InflightCounts = field(init=False)

    def __post_init__(self) -> None:
        """Count from zero for every teacher."""
        self.inflight = InflightCounts(dict.fromkeys(self.scorers, 0), dict.fromkeys(self.scorers, 0))

    def start(self, requests: WindowRequests) -> "Window":
        """Sample and score in the background; needs a running event loop."""
        with attribute_to(self.sampler, "in sample()"):
            source = stream(self.sampler, "sample", self.sampler.sample(requests.samples))
        return Window(requests, self, source)

    def rescore(self, requests: WindowRequests, sampled: Sequence[Rollout | Failure]) -> "Window":
        """Score completions that were sampled already."""
        return Window(requests, self, _replay(sampled))


class Window:
    """One window, being sampled and scored."""

    def __init__(
        self, requests: WindowRequests, scheduler: Scheduler, source: AsyncIterator[Rollout | Failure]
    ) -> None:
        """Start at once; needs a running event loop."""
        self.requests = requests
        self._scheduler = scheduler
        self._source = source
        sampler = type(scheduler.sampler).__name__
        self._results = WindowResults(requests, sampler, scheduler.vocabulary, scheduler.turn_ends)
        self._started = time.perf_counter()
        self._score_started: float | None = None
        self._score_ended = self._started
        self._sample_seconds = 0.0
        self._sampled = asyncio.Event()
        self._waiting: dict[str, list[ScoreRequest]] = {}
        self._progress = ToldProgress(scheduler.progress, len(requests.samples))
        self._task = asyncio.create_task(self._run())

    async def until_sampled(self) -> None:
        """Wait until no more completions will be sampled, so that the sampler may change its weights."""
        waiter = asyncio.ensure_future(self._sampled.wait())
        await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self._task.done():
            self._task.result()

    async def finished(self) -> Outcomes:
        """Wait for every outcome. Raises whatever a plugin raised."""
        await self._task
        score_seconds = 0.0 if self._score_started is None else self._score_ended - self._score_started
        return self._results.outcomes(self._sample_seconds, score_seconds)

    def result(self) -> Outcomes | None:
        """What `finished` gives, if that is there already; None of a window that goes on, or has failed."""
        if not self._task.done() or self._task.cancelled() or self._task.exception() is not None:
            return None
        return self._results.outcomes(self._sample_seconds, 0.0)

    def sampled(self) -> Outcomes | None:
        """All that was sampled, without scores; None before it is all there."""
        return self._results.sampled() if self._sampled.is_set() else None

    async def abandon(self, reason: str) -> Outcomes:
        """Stop, wait until everything has stopped, and give every completion an end: its own failure, or `reason`."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self._results.abandoned(reason)

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as scoring, closing(self._source):
                await self._sample(scoring)
                self._ask_whole_windows(scoring)
            if self._waiting:  # for a second round, which is whole when all of the first are answered
                async with asyncio.TaskGroup() as scoring:
                    self._ask_whole_windows(scoring)
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        self._progress.ended("score", *self._results.progress("score"))
        self._score_ended = time.perf_counter()

    async def _sample(self, scoring: asyncio.TaskGroup) -> None:
        """Take completions as they come, and have them scored."""
        with attribute_to(self._scheduler.sampler, "in sample()"):
            async for outcome in self._source:
                require_yielded(self._scheduler.sampler, outcome, (Rollout, Failure), "sample()")
                rollout = self._results.add_sample(outcome)
                self._progress.goes_on("sample", *self._results.progress("sample"))
                self._ask(scoring, self._results.score_requests(rollout) if rollout is not None else ())
        self._progress.ended("sample", *self._results.progress("sample"))
        self._results.require_all_sampled()
        self._sample_seconds = time.perf_counter() - self._started
        self._sampled.set()

    def _ask(self, scoring: asyncio.TaskGroup, requests: Iterable[ScoreRequest]) -> None:
        """Have requests scored at once, or kept where their scorer wants a window's at once."""
        for request in requests:
            if self._scheduler.scorers[request.teacher].whole_windows:
                self._waiting.setdefault(request.teacher, []).append(request)
            else:
                scoring.create_task(self._score(scoring, request.teacher, [request]))

    def _ask_whole_windows(self, scoring: asyncio.TaskGroup) -> None:
        waiting, self._waiting = self._waiting, {}
        for teacher, requests in waiting.items():
            scoring.create_task(self._score(scoring, teacher, self._results.in_data_order(requests)))

    async def _score(self, scoring: asyncio.TaskGroup, teacher: str, requests: Sequence[ScoreRequest]) -> None:
        """Ask one teacher's scorer, and hold it to one outcome a request."""
        scorer, inflight = self._scheduler.scorers[teacher], self._scheduler.inflight
        unanswered = {request.key: request for request in requests}
        self._score_started = self._score_started or time.perf_counter()
        inflight.change(teacher, len(requests))
        try:
            with attribute_to(scorer, f"in score() for teacher {teacher!r}"):
                async with closing(stream(scorer, "score", scorer.score(requests))) as outcomes:
                    async for outcome in outcomes:
                        require_yielded(scorer, outcome, (Score, Failure), "score()")
                        more = self._results.add_score(outcome, teacher, unanswered)
                        inflight.change(teacher, -1)
                        self._progress.goes_on("score", *self._results.progress("score"))
                        self._ask(scoring, more)
        finally:
            inflight.change(teacher, -len(unanswered))
        if unanswered:
            raise PluginError(
                f"{type(scorer).__name__} gave no outcome for {len(unanswered)} of {len(requests)} requests to teacher "
                f"{teacher!r}: {min(unanswered)}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class KeptWindow:
    """A window that was sampled before the run was resumed: its outcomes are those that the checkpoint held."""

    requests: WindowRequests
    outcomes: Outcomes

    @property
    def to_score(self) -> list[Rollout | Failure]:
        """All that was sampled, or failed then, if the run ended before all of it was scored; else nothing."""
        ended = {lost.key for lost in self.outcomes.lost} | {scored.key for scored in self.outcomes.scored}
        if all(rollout.key in ended for rollout in self.outcomes.rollouts):
            return []
        return sampled_or_failed(self.requests, self.outcomes)

    def result(self) -> Outcomes | None:
        """The outcomes that the checkpoint held."""
        return self.outcomes

    def sampled(self) -> Outcomes | None:
        """The completions that the checkpoint held, without scores."""
        return self.outcomes.unscored()

    async def until_sampled(self) -> None:
        """Return at once: the window was sampled before the run was resumed."""

    async def finished(self) -> Outcomes:
        """The outcomes that the checkpoint held."""
        return self.outcomes

    async def abandon(self, reason: str) -> Outcomes:
        """Every completion's end: what was lost already, and `reason` for the others."""
        stage: Stage = "train"
        lost = (LostCompletion(scored.key, stage, reason, retryable=True) for scored in self.outcomes.scored)
        return self.outcomes.without(lost)


def sampled_or_failed(requests: WindowRequests, outcomes: Outcomes) -> list[Rollout | Failure]:
    """What a sampler gave of `requests`, to be scored, once more if it was."""
    lost = {completion.key: completion for completion in outcomes.lost}
    sampled = {rollout.key for rollout in outcomes.rollouts}
    failures = (
        Failure(request, lost[request.key].reason, retryable=lost[request.key].retryable)
        for request in requests.samples
        if request.key not in sampled
    )
    return [*outcomes.rollouts, *failures]


AnyWindow = Window | KeptWindow


async def _replay(sampled: Sequence[Rollout | Failure]) -> AsyncIterator[Rollout | Failure]:
    for outcome in sampled:
        yield outcome
