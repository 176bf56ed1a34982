"""The live side of sampler `vllm`: its connection and the policy that the servers hold."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import InputError, PluginError
from distillkit.types import (
    Failure,
    Rollout,
    SampleKey,
    SampleRequest,
    SamplingParams,
    Score,
    ScoreRequest,
    Weights,
    token_ids,
)
from distillkit_builtin.concurrently import as_they_come
from distillkit_builtin.http.completing import (
    PATH,
    completion_payload,
    failure_of,
    read_completion,
    require_raw_logprobs,
)
from distillkit_builtin.http.dialects.dialect import Question, read_scores
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.teacher import as_score
from distillkit_builtin.http.vllm.pushing import AdapterPusher, Pusher, WeightsPusher
from distillkit_builtin.remote.answers import Answer, RefusedError, UnansweredError
from distillkit_builtin.remote.remote import Remote

if TYPE_CHECKING:
    from distillkit_builtin.http.vllm.sampler import VllmSampler

NAME = "student"
"""In metrics."""
LOST = 404
UNLOAD_SECONDS = 10.0
"""For an adapter that is not needed any more; a server that is gone must not hold up the run's end."""
TRIES = 3
"""Of a completion whose server lost its weights meanwhile."""
PROBES = (SamplingParams(max_tokens=4, temperature=0.3), SamplingParams(max_tokens=4, temperature=2.0))
"""A confident law hardly changes when it is sharpened, a flat one hardly when it is flattened; vLLM takes at most 2."""
PROBE_IDS = (1, 2, 3, 4)
"""Any prompt does: the server's samples are compared with its own scores."""


@dataclass(slots=True)
class VllmRollouts:
    """Completions from servers that are given each policy version."""

    options: "VllmSampler"
    run: RunContext
    base_model: str
    remote: Remote
    nonce: str
    pusher: Pusher | None = None
    _scoring: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request for prompt logprobs at a time: vLLM 0.32 with --enable-lora (CPU build, punica's einsum) computes
    them for one sequence only, and its engine dies of a batch that holds two. Completions may be in the batch."""

    @classmethod
    async def open(cls, run: RunContext, options: "VllmSampler", base_model: str) -> "VllmRollouts":
        """Connect; see that the servers report logprobs of the untouched law."""
        remote = Remote.open(options, NAME)
        probes = [
            SampleRequest(SampleKey("probe", 0, sample), token_ids(PROBE_IDS), sample, params)
            for sample, params in enumerate(PROBES)
        ]
        try:
            for probe in probes:
                await require_raw_logprobs(remote, PromptLogprobs(), base_model, probe)
        except (RefusedError, UnansweredError) as error:
            await remote.close()
            raise InputError(f"sampler 'vllm': {failure_of(probes[0], error).reason}") from error
        except BaseException:
            await remote.close()
            raise
        return cls(options, run, base_model, remote, secrets.token_hex(3))

    async def close(self) -> None:
        """Unload the last adapter and close connections."""
        try:
            if self.pusher is not None and self.pusher.version >= 0:
                await self._let_go(self.pusher, self.pusher.label)
        finally:
            await self.remote.close()

    async def sync(self, weights: Weights) -> None:
        """Give every replica the new version. Raises PluginError if the student writes no weights for others."""
        if weights.path is None:
            raise PluginError(
                "sampler 'vllm' needs a student that writes its weights to disk; this one keeps them to itself"
            )
        if self.pusher is None:
            kind = AdapterPusher if weights.format == "peft" else WeightsPusher
            self.pusher = kind(self.remote, self.base_model, self.nonce)
        old = self.pusher.label if self.pusher.version >= 0 else None
        await self.pusher.push(weights.version, self._as_the_server_sees(weights.path))
        if old is not None and old != self.pusher.label:
            await self._let_go(self.pusher, old)

    async def _let_go(self, pusher: Pusher, label: str) -> None:
        """Unload what is not asked for any more; a server that does not do it is no reason to end a run."""
        try:
            async with asyncio.timeout(UNLOAD_SECONDS):
                await pusher.drop(label)
        except (RefusedError, UnansweredError, TimeoutError) as error:
            why = str(error) or f"no answer within {UNLOAD_SECONDS:g} s"
            self.run.notify(f"sampler 'vllm': the adapter {label} may still be loaded: {why}")

    def _as_the_server_sees(self, path: Path) -> Path:
        if self.options.server_run_dir is None or self.run.run_dir is None:
            return path.resolve()
        return Path(self.options.server_run_dir) / path.resolve().relative_to(self.run.run_dir.resolve())

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of the policy of the last sync."""
        async for outcome in as_they_come(requests, self._draw):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Given tokens under the policy of the last sync."""
        async for outcome in as_they_come(requests, self._score):
            yield outcome

    async def _draw(self, request: SampleRequest) -> Rollout | Failure:
        pusher = self._ready()
        outcome = await self._ask(request, PATH, completion_payload(request, pusher.model))
        if isinstance(outcome, Failure):
            return outcome
        return read_completion(outcome.value, request, pusher.model, pusher.version)

    async def _score(self, request: ScoreRequest) -> Score | Failure:
        dialect = PromptLogprobs()
        question = Question(self._ready().model, request.prompt_ids, request.rollout.token_ids)
        async with self._scoring:
            outcome = await self._ask(request, dialect.path, dialect.payload(question))
        if isinstance(outcome, Failure):
            return outcome
        what = f"score of {request.key} by {request.teacher} at {outcome.root}"
        return as_score(request, read_scores(dialect, outcome.value, question, what))

    async def _ask(
        self, request: SampleRequest | ScoreRequest, path: str, payload: Mapping[str, JsonValue]
    ) -> Answer | Failure:
        """An answer that was surely made with the version's weights; a server that lost them gets them again."""
        pusher = self._ready()
        for _ in range(TRIES):
            seen = {root: pusher.repairs(root) for root in self.remote.roots}
            try:
                answer = await self.remote.post(path, payload)
                if await pusher.had(answer.root, seen[answer.root]):
                    return answer
                lost_by = answer.root
            except RefusedError as error:
                if error.status != LOST:
                    return failure_of(request, error)
                lost_by = error.root
            except UnansweredError as error:
                return failure_of(request, error)
            await pusher.repair(lost_by, seen[lost_by])
        return Failure(
            request, f"the servers lost the weights of version {pusher.version} again and again", retryable=True
        )

    def _ready(self) -> Pusher:
        if self.pusher is None:
            raise RuntimeError("sampler 'vllm' is asked before its first sync")
        return self.pusher
