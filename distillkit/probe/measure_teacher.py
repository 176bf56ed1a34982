"""One teacher, measured: its gap to the student, and whether it says the same of the same tokens when asked again."""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distillkit.arrays import BoolArray
from distillkit.errors import RunFailedError
from distillkit.loop.outcomes import LostCompletion
from distillkit.loop.sample_and_score import score_each
from distillkit.probe.figures import AGAIN, ALONE, REPLICA, REVERSED, Disagreement, Gap, TeacherFigures
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.roles.attribution import attribute_to
from distillkit.roles.scorer import Scorer, ScoresAnew
from distillkit.tokenizer import Tokenizer, has_end
from distillkit.types import SampleKey

FIRST = 4
"""Tokens at the start of a completion, where another template shows."""
SHOWN_ENDS = 3
PROMPT_END = 3
"""Tokens of a template's end that are compared: what a template says of the answer stands there."""
Scores = Mapping[SampleKey, Score]


def replicas_of(scorer: Scorer) -> Sequence[str | None]:
    """A scorer's replicas by name; None stands for all of one that cannot be asked for them."""
    return scorer.replicas() if isinstance(scorer, ScoresAnew) else (None,)


def tokens_scored(scorer: Scorer, lengths: Sequence[int]) -> int:
    """How many tokens a scorer is asked to score of completions with so many each, prompts counted in."""
    several = len(lengths) > 1
    passes = len(replicas_of(scorer)) + (3 if several else 2)
    return passes * sum(lengths) + (lengths[-1] if several else 0)


@dataclass(frozen=True, slots=True)
class TeacherProbe:
    """One teacher's scorer, and what it is asked of: each completion of its rows, in data order."""

    scorer: Scorer
    requests: Sequence[ScoreRequest]
    tokenizer: Tokenizer
    """The student's, to show tokens."""
    own_ends: Collection[int] = ()
    """What the teacher's own turns end with, as far as that is known."""

    async def measured(self) -> TeacherFigures:
        """The teacher's figures. Raises RunFailedError if it could score nothing.

        All completions are scored at once, as in a run, and by every replica so; then by the first one by one, so that
        nothing is beside them and what was asked before is known: in data order, in that order again, and backwards.
        """
        replica, *others = replicas_of(self.scorer)
        together, lost = await self._scores(self.requests, replica)
        if not together:
            raise RunFailedError(
                f"teacher {self.scorer.teacher.name!r} could score no completion; the first failure: {lost[0].reason}"
            )
        elsewhere = {str(other): (await self._scores(self.requests, other))[0] for other in others}
        several = len(self.requests) > 1
        if several:
            await self._scores(self.requests[-1:], replica)  # what stands before the first the second time
        alone = await self._one_by_one(self.requests, replica)
        asked_again = {AGAIN: disagreement(alone, await self._one_by_one(self.requests, replica))}
        if several:
            asked_again[REVERSED] = disagreement(alone, await self._one_by_one(self.requests[::-1], replica))
            asked_again[ALONE] = disagreement(together, alone)
        compared_with = ""
        if elsewhere:
            places = {str(replica): together, **elsewhere}
            compared_with = nearest_to_all(places)
            base = places.pop(compared_with)
            asked_again |= {f"{REPLICA} {place}": disagreement(base, scores) for place, scores in places.items()}
        return self._figures(list(together.values()), lost, asked_again, compared_with)

    async def _one_by_one(self, requests: Sequence[ScoreRequest], replica: str | None) -> Scores:
        """The scores of each completion while no other is asked about."""
        alone: dict[SampleKey, Score] = {}
        for request in requests:
            scores, _ = await self._scores([request], replica)
            alone |= scores
        return alone

    async def _scores(
        self, requests: Sequence[ScoreRequest], replica: str | None
    ) -> tuple[Scores, list[LostCompletion]]:
        scorer = _OneReplica(self.scorer, replica) if isinstance(self.scorer, ScoresAnew) and replica else self.scorer
        with attribute_to(self.scorer, f"for teacher {self.scorer.teacher.name!r}"):
            return await score_each(scorer, requests)

    def _figures(
        self,
        scores: Sequence[Score],
        lost: Sequence[LostCompletion],
        asked_again: Mapping[str, Disagreement],
        compared_with: str,
    ) -> TeacherFigures:
        gaps = [score.logprobs - score.request.rollout.logprobs for score in scores]
        masks = [_parts(score.request.rollout) for score in scores]
        ended = [score.request for score, mask in zip(scores, masks, strict=True) if mask["end"][-1]]
        ends = Counter(int(request.rollout.token_ids[-1]) for request in ended)

        def gap(part: str) -> Gap:
            return Gap.of(np.concatenate([values[mask[part]] for values, mask in zip(gaps, masks, strict=True)]))

        return TeacherFigures(
            teacher=self.scorer.teacher.name,
            completions=len(scores),
            failed=len(lost),
            failure=lost[0].reason if lost else None,
            ended=sum(score.request.rollout.finish_reason == "stop" for score in scores),
            gap=gap("all"),
            first=gap("first"),
            end=gap("end"),
            between=gap("between"),
            end_tokens=tuple(self.tokenizer.show([token]) for token, _ in ends.most_common(SHOWN_ENDS)),
            ends_as_teacher=bool(ended) and all(int(request.token_ids[-1]) in self.own_ends for request in ended),
            prompts_end_alike=all(_end_alike(score.request) for score in scores),
            asked_again=asked_again,
            compared_with=compared_with,
        )


def _parts(rollout: Rollout) -> Mapping[str, BoolArray]:
    """Which of a completion's active tokens are its end, its first ones, and those between."""
    places = np.arange(len(rollout.token_ids))
    end = rollout.active & (places == len(places) - 1) & has_end(rollout)
    first = rollout.active & (places < FIRST) & ~end
    return {"all": rollout.active, "end": end, "first": first, "between": rollout.active & ~first & ~end}


def _end_alike(request: ScoreRequest) -> bool:
    ours, theirs = request.rollout.request.prompt_ids, request.prompt_ids
    return np.array_equal(ours[-PROMPT_END:], theirs[-PROMPT_END:])


@dataclass(frozen=True, slots=True)
class _OneReplica:
    """A `TokenScorer` that asks one replica, and no cache."""

    scorer: ScoresAnew
    replica: str

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        return self.scorer.score_anew(requests, self.replica)


def nearest_to_all(places: Mapping[str, Scores]) -> str:
    """The place whose scores are least far from all others', so of most that agree; the first of several.

    One that scored less than another is none.
    """
    most = max(map(len, places.values()))
    whole = [place for place, scores in places.items() if len(scores) == most]
    return min(whole, key=lambda place: sum(disagreement(places[place], each).mean for each in places.values()))


def disagreement(scores: Scores, others: Scores) -> Disagreement:
    """How far two scores of the same completions are apart; what was scored once only does not count."""
    parts = [
        score.request.rollout.at_active(others[key].logprobs - score.logprobs)
        for key, score in scores.items()
        if key in others
    ]
    return Disagreement.of(np.concatenate([np.zeros(0, np.float32), *parts]))
