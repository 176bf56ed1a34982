"""One teacher, measured: its gap to the student, and whether it says the same of the same tokens when asked again."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distillkit.arrays import BoolArray
from distillkit.errors import RunFailedError
from distillkit.loop.outcomes import LostCompletion
from distillkit.loop.sample_and_score import score_each
from distillkit.probe.figures import Disagreement, Gap, TeacherFigures
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.roles.attribution import attribute_to
from distillkit.roles.scorer import Scorer, ScoresAnew
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleKey

FIRST = 4
"""Tokens at the start of a completion, where another template shows."""
SHOWN_ENDS = 3
Scores = Mapping[SampleKey, Score]


def replicas_of(scorer: Scorer) -> Sequence[str | None]:
    """A scorer's replicas by name; None stands for all of one that cannot be asked for them."""
    return scorer.replicas() if isinstance(scorer, ScoresAnew) else (None,)


def passes(scorer: Scorer, completions: int) -> int:
    """How often each of so many completions is scored: at first, again, in other company, by other replicas."""
    return 1 + len(replicas_of(scorer)) + (2 if completions > 1 else 0)


@dataclass(frozen=True, slots=True)
class TeacherProbe:
    """One teacher's scorer, and what it is asked of: each completion of its rows, in data order."""

    scorer: Scorer
    requests: Sequence[ScoreRequest]
    tokenizer: Tokenizer
    """The student's, to show tokens."""

    async def measured(self) -> TeacherFigures:
        """The teacher's figures. Raises RunFailedError if it could score nothing."""
        first, *others = replicas_of(self.scorer)
        scores, lost = await self._scores(self.requests, first)
        if not scores:
            raise RunFailedError(
                f"teacher {self.scorer.teacher.name!r} could score no completion; the first failure: {lost[0].reason}"
            )
        asked_again = {"again": await self._compared(scores, self.requests, first)}
        if len(self.requests) > 1:
            asked_again["reversed"] = await self._compared(scores, self.requests[::-1], first)
            asked_again["alone"] = disagreement(scores, await self._scored_alone(first))
        for replica in others:
            asked_again[f"replica {replica}"] = await self._compared(scores, self.requests, replica)
        return _figures(self.scorer.teacher.name, list(scores.values()), lost, self.tokenizer, asked_again)

    async def _compared(self, scores: Scores, requests: Sequence[ScoreRequest], replica: str | None) -> Disagreement:
        again, _ = await self._scores(requests, replica)
        return disagreement(scores, again)

    async def _scored_alone(self, replica: str | None) -> Scores:
        """The scores of each completion while no other is asked of."""
        alone: dict[SampleKey, Score] = {}
        for request in self.requests:
            scores, _ = await self._scores([request], replica)
            alone |= scores
        return alone

    async def _scores(
        self, requests: Sequence[ScoreRequest], replica: str | None
    ) -> tuple[Scores, list[LostCompletion]]:
        scorer = _OneReplica(self.scorer, replica) if isinstance(self.scorer, ScoresAnew) and replica else self.scorer
        with attribute_to(self.scorer, f"for teacher {self.scorer.teacher.name!r}"):
            return await score_each(scorer, requests)


@dataclass(frozen=True, slots=True)
class _OneReplica:
    """A `TokenScorer` that asks one replica, and no cache."""

    scorer: ScoresAnew
    replica: str

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        return self.scorer.score_anew(requests, self.replica)


def disagreement(scores: Scores, others: Scores) -> Disagreement:
    """How far two scores of the same completions are apart; what was scored once only does not count."""
    parts = [
        score.request.rollout.at_active(others[key].logprobs - score.logprobs)
        for key, score in scores.items()
        if key in others
    ]
    return Disagreement.of(np.concatenate([np.zeros(0, np.float32), *parts]))


def _figures(
    teacher: str,
    scores: Sequence[Score],
    lost: Sequence[LostCompletion],
    tokenizer: Tokenizer,
    asked_again: Mapping[str, Disagreement],
) -> TeacherFigures:
    gaps = [score.logprobs - score.request.rollout.logprobs for score in scores]
    ends = [score.request.rollout for score in scores if score.request.rollout.finish_reason == "stop"]
    ids = Counter(int(rollout.token_ids[-1]) for rollout in ends).most_common(SHOWN_ENDS)
    masks = [_parts(score) for score in scores]

    def gap(part: str) -> Gap:
        return Gap.of(np.concatenate([values[mask[part]] for values, mask in zip(gaps, masks, strict=True)]))

    return TeacherFigures(
        teacher=teacher,
        completions=len(scores),
        failed=len(lost),
        failure=lost[0].reason if lost else None,
        ended=len(ends),
        gap=gap("all"),
        first=gap("first"),
        end=gap("end"),
        between=gap("between"),
        end_tokens=tuple(tokenizer.show([token]) for token, _ in ids),
        asked_again=asked_again,
    )


def _parts(score: Score) -> Mapping[str, BoolArray]:
    """Which of a completion's active tokens are its end, its first ones, and those between."""
    rollout = score.request.rollout
    places = np.arange(len(rollout.token_ids))
    end = rollout.active & (places == len(places) - 1) & (rollout.finish_reason == "stop")
    first = rollout.active & (places < FIRST) & ~end
    return {"all": rollout.active, "end": end, "first": first, "between": rollout.active & ~first & ~end}
