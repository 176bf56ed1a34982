"""The live side of sampler `vllm`: its connection and the policy that the servers hold."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from distillkit.arrays import token_ids
from distillkit.context import RunContext
from distillkit.errors import InputError, PluginError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.http.completions import failure_of, require_raw_logprobs
from distillkit_builtin.http.dialects.dialect import Question
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.model_requests import as_score, drawn, read
from distillkit_builtin.remote.as_completed import as_they_come
from distillkit_builtin.remote.results import Answer, RefusedError, UnansweredError, error_context
from distillkit_builtin.remote.service_client import Remote
from distillkit_builtin.vllm.options import VllmSamplerOptions
from distillkit_builtin.vllm.weight_push import AdapterPusher, Pushed, Pusher, WeightsPusher

NAME = "student"
"""In metrics."""
LOST = 404
TRIES = 3
"""Of a completion whose server lost its weights meanwhile."""
PROBES = (SamplingParams(max_tokens=4, temperature=0.3), SamplingParams(max_tokens=4, temperature=2.0))
"""A confident law hardly changes when it is sharpened, a flat one hardly when it is flattened; vLLM takes at most 2."""
PROBE_IDS = (1, 2, 3, 4)
"""Any prompt does: the server's samples are compared with its own scores."""


@dataclass(slots=True)
class VllmRollouts:
    """Completions from servers that are given each policy version."""

    options: VllmSamplerOptions
    run: RunContext
    base_model: str
    remote: Remote
    nonce: str
    pusher: Pusher | None = None
    _scoring: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request for prompt logprobs at a time: vLLM 0.32 with --enable-lora (CPU build, punica's einsum) computes
    them for one sequence only, and its engine dies of a batch that holds two. Completions may be in the batch."""

    @classmethod
    async def open(cls, run: RunContext, options: VllmSamplerOptions, base_model: str) -> "VllmRollouts":
        """Connect; see that the servers report logprobs of the untouched law."""
        probes = [
            SampleRequest(SampleKey("probe", 0, sample), token_ids(PROBE_IDS), sample, params)
            for sample, params in enumerate(PROBES)
        ]
        with error_context("sampler 'vllm'"):
            remote = Remote.open(options, NAME)
            try:
                for probe in probes:
                    await require_raw_logprobs(remote, PromptLogprobs(), base_model, probe)
            except RefusedError as error:
                await remote.close()
                raise InputError(failure_of(probes[0], error).reason) from error
            except BaseException:
                await remote.close()
                raise
        return cls(options, run, base_model, remote, secrets.token_hex(3))

    async def close(self) -> None:
        """Unload the last adapter, and one whose load was interrupted; close connections."""
        try:
            if self.pusher is not None:
                await self._let_go(self.pusher, self.pusher.current)
                await self._let_go(self.pusher, self.pusher.pending)
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
        old = self.pusher.current
        await self.pusher.push(weights.version, self._as_the_server_sees(weights.path))
        if old is not None and old.label != self.pusher.served.label:
            await self._let_go(self.pusher, old)

    async def _let_go(self, pusher: Pusher, old: Pushed | None) -> None:
        """Unload what is not asked for any more; a server that does not do it is no reason to end a run."""
        if old is None:
            return
        for why in await pusher.let_go(old, self.remote.roots):
            self.run.notify(f"sampler 'vllm': the adapter {old.label} may still be loaded: {why}")

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
        return await drawn(self._ask, request, pusher.model, pusher.served.version)

    async def _score(self, request: ScoreRequest) -> Score | Failure:
        question = Question(self._ready().model, request.prompt_ids, request.rollout.token_ids)
        async with self._scoring:
            reading = await read(self._ask, request, PromptLogprobs(), question, request.teacher)
        return reading if isinstance(reading, Failure) else as_score(request, reading)

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
            request, f"the servers lost the weights of version {pusher.served.version} again and again", retryable=True
        )

    def _ready(self) -> Pusher:
        if self.pusher is None:
            raise RuntimeError("sampler 'vllm' is asked before its first sync")
        return self.pusher
