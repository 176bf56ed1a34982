"""Sampling and scoring outside of windows, as evaluations need it; one outcome a request here too."""

from collections.abc import Callable, Sequence

from distillkit.errors import PluginError, RunFailedError
from distillkit.events import PhaseProgress
from distillkit.loop.outcomes import LostCompletion
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.roles.plugin import Plugin
from distillkit.roles.returned import require_yielded, stream
from distillkit.roles.sampler import Sampler, TokenScorer
from distillkit.tokenizer import unknown_id
from distillkit.types import SampleKey, SampleRequest

Progress = Callable[[PhaseProgress], None]


def quiet(event: PhaseProgress) -> None:
    """Tell nobody."""


async def sample_all(
    sampler: Sampler, requests: Sequence[SampleRequest], vocabulary: int | None = None, progress: Progress = quiet
) -> tuple[dict[SampleKey, Rollout], list[LostCompletion]]:
    """Sample completions without scoring them: those that came, by key, and those that did not.

    `progress` hears of each.

    Raises:
        PluginError: unless there is one outcome a request.
        RunFailedError: if every request failed.
    """
    rollouts: dict[SampleKey, Rollout] = {}
    lost: list[LostCompletion] = []
    async for outcome in stream(sampler, "sample", sampler.sample(requests)):
        require_yielded(sampler, outcome, (Rollout, Failure), "sample()")
        if isinstance(outcome, Failure):
            lost.append(LostCompletion(outcome.request.key, "sample", outcome.reason, outcome.retryable))
        elif (unknown := unknown_id(outcome, vocabulary)) is not None:
            lost.append(LostCompletion(outcome.key, "sample", unknown, retryable=False))
        else:
            rollouts[outcome.key] = outcome
        progress(PhaseProgress("sample", len(rollouts), len(requests)))
    if len(rollouts) + len(lost) != len(requests):
        raise PluginError(f"{type(sampler).__name__}: {len(requests)} requests, {len(rollouts) + len(lost)} outcomes")
    if requests and not rollouts:
        raise RunFailedError(f"no completion could be sampled; the first failure: {lost[0].reason}")
    return rollouts, lost


async def score_all(
    scorer: TokenScorer, requests: Sequence[ScoreRequest], progress: Progress = quiet
) -> tuple[dict[SampleKey, Score], list[LostCompletion]]:
    """Score given completions: the scores, by key, and those that failed. `progress` hears of each.

    Raises:
        PluginError: unless there is one outcome a request.
        RunFailedError: if every request failed.
    """
    scores, lost = await score_each(scorer, requests, progress)
    if requests and not scores:
        raise RunFailedError(f"no completion could be scored; the first failure: {lost[0].reason}")
    return scores, lost


async def score_each(
    scorer: TokenScorer, requests: Sequence[ScoreRequest], progress: Progress = quiet
) -> tuple[dict[SampleKey, Score], list[LostCompletion]]:
    """`score_all` where all may fail. Raises PluginError unless there is one outcome a request."""
    scores: dict[SampleKey, Score] = {}
    lost: list[LostCompletion] = []
    outcomes = scorer.score(requests)
    async for outcome in stream(scorer, "score", outcomes) if isinstance(scorer, Plugin) else outcomes:
        if isinstance(scorer, Plugin):
            require_yielded(scorer, outcome, (Score, Failure), "score()")
        if isinstance(outcome, Failure):
            key, asked = outcome.request.key, outcome.request
            teacher = asked.teacher if isinstance(asked, ScoreRequest) else None
            lost.append(LostCompletion(key, "score", outcome.reason, outcome.retryable, teacher))
        else:
            scores[outcome.request.key] = outcome
        progress(PhaseProgress("score", len(scores), len(requests)))
    if len(scores) + len(lost) != len(requests):
        raise PluginError(f"{type(scorer).__name__}: {len(requests)} requests, {len(scores) + len(lost)} outcomes")
    return scores, lost
