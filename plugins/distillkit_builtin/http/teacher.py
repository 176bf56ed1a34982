"""The live side of scorer `http`: its connection and dialect, between open and close."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillkit.errors import InputError
from distillkit.tokenizer import Tokenizer
from distillkit.types import Array, Failure, Rollout, SampleRequest, Score, ScoreRequest
from distillkit_builtin.concurrently import as_they_come
from distillkit_builtin.http.cache import ScoreCache
from distillkit_builtin.http.completing import PATH, completion_payload, failure_of, read_completion
from distillkit_builtin.http.dialects.dialect import Dialect, Question, Reading, read_scores
from distillkit_builtin.http.probe import find_dialect, probe_question, require_same_tokenizer
from distillkit_builtin.remote.answers import RefusedError, UnansweredError
from distillkit_builtin.remote.remote import Remote

if TYPE_CHECKING:
    from distillkit_builtin.http.scorer import HttpScorer


@dataclass(slots=True)
class HttpTeacher:
    """One teacher's model behind one or several replicas."""

    model: str
    remote: Remote
    dialect: Dialect
    topk: int
    cache: ScoreCache | None

    @classmethod
    async def open(cls, options: "HttpScorer", tokenizer: Tokenizer, fingerprint: str) -> "HttpTeacher":
        """Connect and probe. Raises InputError if the server cannot score, or reads text in another way."""
        teacher = options.teacher
        remote = Remote.open(options, teacher.slug)
        try:
            question = probe_question(teacher.model, tokenizer, options.topk)
            dialect = await find_dialect(remote, options.dialect, question)
            await require_same_tokenizer(remote, teacher.model, tokenizer, f"teacher {teacher.name!r}")
            cache = None if options.cache is None else ScoreCache.open(options.cache, fingerprint)
        except UnansweredError as error:
            await remote.close()
            raise InputError(f"teacher {teacher.name!r}: {error.reason}") from error
        except BaseException:
            await remote.close()
            raise
        return cls(teacher.model, remote, dialect, options.topk, cache)

    async def close(self) -> None:
        """Close connections and cache."""
        await self.remote.close()
        if self.cache is not None:
            self.cache.close()

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores in order of arrival; how many are under way is `remote`'s say."""
        async for outcome in as_they_come(requests, self._score):
            yield outcome

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions."""
        async for outcome in as_they_come(requests, self._draw):
            yield outcome

    async def _score(self, request: ScoreRequest) -> Score | Failure:
        question = Question(self.model, request.prompt_ids, request.rollout.token_ids, self.topk)
        known = None if self.cache is None else await self.cache.get(question)
        if known is not None:
            return as_score(request, known)
        try:
            answer = await self.remote.post(self.dialect.path, self.dialect.payload(question))
        except (RefusedError, UnansweredError) as error:
            return failure_of(request, error)
        what = f"score of {request.key} by teacher {request.teacher!r} at {answer.root}"
        reading = read_scores(self.dialect, answer.value, question, what)
        score = as_score(request, reading)
        if self.cache is not None:
            await self.cache.put(question, reading)
        return score

    async def _draw(self, request: SampleRequest) -> Rollout | Failure:
        try:
            answer = await self.remote.post(PATH, completion_payload(request, self.model))
        except (RefusedError, UnansweredError) as error:
            return failure_of(request, error)
        return read_completion(answer.value, request, self.model, 0)


def as_score(request: ScoreRequest, reading: Reading) -> Score:
    """The engine's value. Raises AlignmentError if ids or logprobs are not those of the response."""
    arrays: dict[str, Array] = {}
    if reading.topk_ids is not None and reading.topk_logprobs is not None:
        arrays = {"topk_ids": reading.topk_ids, "topk_logprobs": reading.topk_logprobs}
    return Score(request, reading.logprobs, reading.ids, arrays=arrays)
