"""The live side of scorer `http`: its connection and dialect, between open and close."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.events import NoticeKind
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest, Teacher
from distillkit_builtin.http.cache import ScoreCache, identity
from distillkit_builtin.http.completions import Completions, failure_of
from distillkit_builtin.http.dialects.dialect import ScoreQuery, TokenLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens
from distillkit_builtin.http.frozen_teachers import keep_weights
from distillkit_builtin.http.gone_endpoint import EndpointGoneError, require_endpoint
from distillkit_builtin.http.model_requests import Send, as_score, sample_completion, score_tokens
from distillkit_builtin.http.models import ServedModel
from distillkit_builtin.http.options import HttpScorerOptions
from distillkit_builtin.http.probe import (
    WHOLE_PROMPTS,
    find_spoken,
    probe_query,
    require_same_tokenizer,
    served_weights,
    server_version,
)
from distillkit_builtin.http.raw_logprobs import raw_logprob_probes, require_raw_logprobs
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.http.score_file import ScoreFile
from distillkit_builtin.http.sglang_completions import SGLangCompletions
from distillkit_builtin.http.spoken import AT_IDS, Spoken, joined
from distillkit_builtin.remote.as_completed import as_completed
from distillkit_builtin.remote.results import RefusedError, Result, UnansweredError, error_context
from distillkit_builtin.remote.service_client import ServiceClient

UNTEMPERED = (0.0, 1.0)
"""Temperatures at which SGLang's logprobs are raw however it was started; it samples greedily at 1."""


@dataclass(slots=True)
class HttpTeacher:
    """One teacher's model behind one or several replicas."""

    name: str
    model: str
    client: ServiceClient
    spoken: Spoken
    cache: ScoreCache | None
    server_version: str | None = None
    adapter: bool = False
    """Whether `model` is an adapter."""
    aliases: frozenset[str] = frozenset()
    """Other names of `model` at the server."""
    by_choice: bool = False
    """Whether the config names the dialect, and so no other is taken in its place."""
    tell: Callable[[str, NoticeKind], None] = lambda message, kind: None
    _raw: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_raw: bool = False
    """Whether the server was found to report raw logprobs of what it samples."""

    @property
    def form(self) -> CompletionForm:
        """How the server is asked for completions."""
        return SGLangCompletions(self.adapter) if isinstance(self.spoken.dialect, SGLang) else Completions()

    @classmethod
    async def open(
        cls, run: RunContext, teacher: Teacher, options: HttpScorerOptions, tokenizer: Tokenizer, served: ServedModel
    ) -> "HttpTeacher":
        """Connect and probe.

        Raises InputError if the server cannot score, tokenizes in another way, or leaves a part of an adapter out.
        """
        who, adapter = f"teacher {teacher.name!r}", served.parent is not None
        with error_context(who):
            client = ServiceClient.open(options, teacher.slug, tell=run.notify_as(who))
            keep_weights(run, client, teacher.name)
            try:
                query = replace(
                    probe_query(teacher.model, tokenizer, run.scorer_needs),
                    adapter=adapter,
                    aliases=served.other_names,
                )
                spoken = await find_spoken(client, options, query, run.notify_as(who))
                await require_same_tokenizer(client, teacher.model, tokenizer)
                if adapter and not isinstance(spoken.dialect, SGLang):
                    for probe in raw_logprob_probes():
                        way = spoken.given or spoken.dialect
                        await require_raw_logprobs(client, Completions(), way, teacher.model, probe, adapter=True)
                cache = await _open_cache(run, teacher, options, client, served)
                version = await server_version(client)
            except BaseException:
                await client.close()
                raise
        by_choice, tell = options.dialect != "auto", run.notify_as(who)
        names = teacher.name, teacher.model
        return cls(*names, client, spoken, cache, version, adapter, served.other_names, by_choice, tell)

    async def close(self) -> None:
        """Close connections; the cache's file belongs to all teachers that use it."""
        await self.client.close()

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores in order of arrival; `client` limits how many requests are under way."""
        async for outcome in as_completed(requests, self._score):
            yield outcome

    async def score_anew(self, requests: Sequence[ScoreRequest], replica: str) -> AsyncIterator[Score | Failure]:
        """Scores that one replica computes now, in order of arrival; the cache is neither read nor written."""
        send = partial(self._send, only=replica)
        async for outcome in as_completed(requests, partial(self._score_by, send=send)):
            yield outcome

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions, in order of arrival."""
        async for outcome in as_completed(requests, self._sample):
            yield outcome

    def metrics(self) -> Mapping[str, float]:
        """Those of the client, and of the cache where there is one, since the last call."""
        return {**self.client.metrics(), **({} if self.cache is None else self.cache.metrics())}

    async def _score(self, request: ScoreRequest) -> Score | Failure:
        query = self._query(request)
        known = None if self.cache is None else await self.cache.get(query)
        if known is not None:
            return as_score(request, known)
        scored = await self._computed(request, self._send)
        if isinstance(scored, Failure):
            return scored
        score = as_score(request, scored)
        if self.cache is not None:
            await self.cache.put(query, scored)
        return score

    async def _score_by(self, request: ScoreRequest, send: Send) -> Score | Failure:
        scored = await self._computed(request, send)
        return scored if isinstance(scored, Failure) else as_score(request, scored)

    def _query(self, request: ScoreRequest) -> ScoreQuery:
        ids = request.prompt_ids, request.token_ids
        return ScoreQuery(self.model, *ids, request.topk, request.at_ids, adapter=self.adapter, aliases=self.aliases)

    async def _computed(self, request: ScoreRequest, send: Send) -> TokenLogprobs | Failure:
        """What the server makes of a request, for whole prompts once it has the token interface no more."""
        try:
            return await self._asked(request, send)
        except EndpointGoneError as gone:
            self._do_without(gone, request)
        return await self._asked(request, send)

    def _do_without(self, gone: EndpointGoneError, request: ScoreRequest) -> None:
        """Ask in the dialect that gave the same numbers at the start. Raises RunFailedError where that gives less."""
        if request.at_ids is not None or self.by_choice:
            raise RunFailedError(f"teacher {self.name!r}: {gone}; {AT_IDS}") from gone.refusal
        if self.spoken.given is not None:
            self.spoken = replace(self.spoken, given=None)
            self.tell(f"{gone}: {WHOLE_PROMPTS}", "warning")

    async def _asked(self, request: ScoreRequest, send: Send) -> TokenLogprobs | Failure:
        answers: list[TokenLogprobs] = []
        for dialect, query in self.spoken.requests(self._query(request)):
            scored = await score_tokens(send, request, dialect, query, f"teacher {request.teacher!r}")
            if isinstance(scored, Failure):
                return scored
            answers.append(scored)
        return joined(answers)

    async def _sample(self, request: SampleRequest) -> Rollout | Failure:
        if isinstance(self.spoken.dialect, SGLang) and request.params.temperature not in UNTEMPERED:
            await self._require_raw_logprobs()
        return await sample_completion(self._send, self.form, request, self.model, 0)

    async def _require_raw_logprobs(self) -> None:
        """Once. Raises InputError for an SGLang that reports logprobs at the sampling temperature, as by default."""
        async with self._raw:
            if self._is_raw:
                return
            with error_context(f"teacher {self.name!r}"):
                for probe in raw_logprob_probes():
                    await require_raw_logprobs(
                        self.client, self.form, self.spoken.dialect, self.model, probe, adapter=self.adapter
                    )
            self._is_raw = True

    async def _send(
        self,
        request: SampleRequest | ScoreRequest,
        path: str,
        payload: Mapping[str, JsonValue],
        only: str | None = None,
    ) -> Result | Failure:
        try:
            return await self.client.post(path, payload, only=only)
        except RefusedError as error:
            if path == VllmTokens.path:
                require_endpoint(error, path, self.model)
            return failure_of(request, error)
        except UnansweredError as error:
            return failure_of(request, error)


async def _open_cache(
    run: RunContext, teacher: Teacher, options: HttpScorerOptions, client: ServiceClient, served: ServedModel
) -> ScoreCache | None:
    if options.cache is None:
        return None
    key = ("cache of scores", str(Path(options.cache).resolve()))
    file = run.share(key, partial(ScoreFile, options.cache, partial(run.notify, kind="warning")), ScoreFile.close)
    weights = await served_weights(client)
    await file.open()
    return ScoreCache(file, identity(served.identity, weights), teacher.slug)
