"""The live side of scorer `http`: its connection and dialect, between open and close."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest, Teacher
from distillkit_builtin.http.cache import ScoreCache, identity
from distillkit_builtin.http.completions import failure_of
from distillkit_builtin.http.dialects.dialect import Dialect, Question
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.models import ONLY_SCORES, ServedModel
from distillkit_builtin.http.options import HttpScorerOptions
from distillkit_builtin.http.model_requests import as_score, drawn, read
from distillkit_builtin.http.probe import (
    find_dialect,
    probe_question,
    require_same_tokenizer,
    told_of_weights,
)
from distillkit_builtin.http.score_file import ScoreFile
from distillkit_builtin.remote.as_completed import as_they_come
from distillkit_builtin.remote.results import Answer, RefusedError, UnansweredError, error_context
from distillkit_builtin.remote.service_client import Remote


@dataclass(slots=True)
class HttpTeacher:
    """One teacher's model behind one or several replicas."""

    name: str
    model: str
    remote: Remote
    dialect: Dialect
    topk: int
    cache: ScoreCache | None

    @classmethod
    async def open(
        cls, run: RunContext, teacher: Teacher, options: HttpScorerOptions, tokenizer: Tokenizer, served: ServedModel
    ) -> "HttpTeacher":
        """Connect and probe. Raises InputError if the server cannot score, or reads text in another way."""
        who = f"teacher {teacher.name!r}"
        with error_context(who):
            remote = Remote.open(options, teacher.slug)
            try:
                question = probe_question(teacher.model, tokenizer, options.topk)
                dialect = await find_dialect(remote, options.dialect, question)
                await require_same_tokenizer(remote, teacher.model, tokenizer)
                cache = await _open_cache(run, teacher, options, remote, served)
            except BaseException:
                await remote.close()
                raise
        if isinstance(dialect, SGLang) and (run.plan is None or run.plan.evaluations):
            run.notify(f"{who} at {remote.roots[0]}: {ONLY_SCORES}")
        return cls(teacher.name, teacher.model, remote, dialect, options.topk, cache)

    async def close(self) -> None:
        """Close connections; the cache's file belongs to all teachers that use it."""
        await self.remote.close()

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores in order of arrival; how many are under way is `remote`'s say."""
        async for outcome in as_they_come(requests, self._score):
            yield outcome

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions."""
        async for outcome in as_they_come(requests, self._draw):
            yield outcome

    def metrics(self) -> Mapping[str, float]:
        """Of the connection, and of the cache where there is one."""
        return {**self.remote.metrics(), **({} if self.cache is None else self.cache.metrics())}

    async def _score(self, request: ScoreRequest) -> Score | Failure:
        question = Question(self.model, request.prompt_ids, request.rollout.token_ids, self.topk)
        known = None if self.cache is None else await self.cache.get(question)
        if known is not None:
            return as_score(request, known)
        reading = await read(self._ask, request, self.dialect, question, f"teacher {request.teacher!r}")
        if isinstance(reading, Failure):
            return reading
        score = as_score(request, reading)
        if self.cache is not None:
            await self.cache.put(question, reading)
        return score

    async def _draw(self, request: SampleRequest) -> Rollout | Failure:
        if isinstance(self.dialect, SGLang):
            return Failure(request, f"teacher {self.name!r}: {ONLY_SCORES}")
        return await drawn(self._ask, request, self.model, 0)

    async def _ask(
        self, request: SampleRequest | ScoreRequest, path: str, payload: Mapping[str, JsonValue]
    ) -> Answer | Failure:
        try:
            return await self.remote.post(path, payload)
        except (RefusedError, UnansweredError) as error:
            return failure_of(request, error)


async def _open_cache(
    run: RunContext, teacher: Teacher, options: HttpScorerOptions, remote: Remote, served: ServedModel
) -> ScoreCache | None:
    if options.cache is None:
        return None
    key = ("cache of scores", str(Path(options.cache).resolve()))
    file = run.share(key, partial(ScoreFile, options.cache, run.notify), ScoreFile.close)
    weights = await told_of_weights(remote)
    await file.open()
    return ScoreCache(file, identity(served.identity, weights, options.topk), teacher.slug)
