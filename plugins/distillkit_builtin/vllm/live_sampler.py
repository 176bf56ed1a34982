"""The live side of sampler `vllm`: its client and the policy version that the servers have."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import InputError, PluginError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.types import SampleRequest
from distillkit_builtin.http.completions import failure_of
from distillkit_builtin.http.dialects.dialect import ScoreQuery
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.model_requests import as_score, sample_completion, score_tokens
from distillkit_builtin.http.options import more_logprobs
from distillkit_builtin.http.probe import server_version
from distillkit_builtin.http.raw_logprobs import PROBE_IDS, raw_logprob_probes, require_raw_logprobs
from distillkit_builtin.http.untouched import require_untouched_sampling
from distillkit_builtin.remote.as_completed import as_completed
from distillkit_builtin.remote.results import RefusedError, Result, UnansweredError, error_context
from distillkit_builtin.remote.service_client import ServiceClient
from distillkit_builtin.vllm.completion_form import FormProbe, FoundForm
from distillkit_builtin.vllm.each_server import require_served
from distillkit_builtin.vllm.options import VllmSamplerOptions
from distillkit_builtin.vllm.push_kinds import AdapterPush, FullWeightsPush, require_no_pushed_base
from distillkit_builtin.vllm.token_completions import TokenCompletions, weight_versions
from distillkit_builtin.vllm.weight_push import PushedVersion, WeightPush

NAME = "student"
"""The sampler's name in metrics."""
NOT_FOUND = 404
TRIES = 3
"""Attempts at a completion whose server lost its weights meanwhile."""


@dataclass(slots=True)
class LiveVllmSampler:
    """Completions from servers that are given each policy version."""

    options: VllmSamplerOptions
    run: RunContext
    base_model: str
    client: ServiceClient
    nonce: str
    found: FoundForm
    """By which endpoint the servers are asked for completions."""
    server_version: str | None = None
    weight_push: WeightPush | None = None
    _scoring: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request for prompt logprobs at a time: vLLM 0.32 with --enable-lora (CPU build, punica's einsum) computes
    them for one sequence only, and its engine dies of a batch that holds two. Completions may be in the batch."""

    @classmethod
    async def open(cls, run: RunContext, options: VllmSamplerOptions, base_model: str) -> "LiveVllmSampler":
        """Connect. Raises InputError if a server is not one that the run can sample from.

        It must serve the model, at a length that prompts and completions fit in, and report the logprobs at temperature
        1 of what it samples from.
        """
        wanted = {name: amount for name, amount in run.sampler_needs.items() if name == "topk"}
        probes = raw_logprob_probes(wanted)
        with error_context("sampler 'vllm'"):
            client = ServiceClient.open(options, NAME, tell=run.notify_as("sampler 'vllm'"))
            try:
                await require_served(client, base_model, run)
                tell = run.notify_as("sampler 'vllm'")
                first = FormProbe(client, base_model, probes[0])
                found = await first.found(run.tokenizer, options.max_logprobs, tell)
                for probe in probes:
                    await require_raw_logprobs(client, found.form, PromptLogprobs(), base_model, probe)
                await require_untouched_sampling(client, found.form, base_model, PROBE_IDS)
                version = await server_version(client)
            except RefusedError as error:
                await client.close()
                more = f"; for {wanted['topk']} top-k tokens: {more_logprobs(wanted['topk'])}" if wanted else ""
                raise InputError(f"{failure_of(probes[0], error).reason}{more}") from error
            except BaseException:
                await client.close()
                raise
        return cls(options, run, base_model, client, secrets.token_hex(3), found, version)

    async def close(self) -> None:
        """Unload the last adapter, and one whose load was interrupted; close connections."""
        try:
            if self.weight_push is not None:
                await self._unload(self.weight_push, self.weight_push.current)
                await self._unload(self.weight_push, self.weight_push.pending)
        finally:
            await self.client.close()

    async def sync(self, weights: Weights) -> None:
        """Push the new version to every replica.

        Raises:
            PluginError: if the student writes no weights to disk.
            InputError: if a server's scores of the first adapter's completions are not the logprobs that it reported,
                or its base model has weights that a run pushed.
        """
        if weights.path is None:
            raise PluginError(
                "sampler 'vllm' needs a student that writes its weights to disk; this one keeps them to itself"
            )
        if self.weight_push is None:
            kind = AdapterPush if weights.format == "peft" else FullWeightsPush
            if kind is AdapterPush:
                require_no_pushed_base(self.found.base_versions)
            self.weight_push = kind(self.client, self.base_model, self.nonce, self.found.base_versions)
        old = self.weight_push.current
        absent = await self.weight_push.push(weights.version, self._server_path(weights.path))
        for reason in absent.values():
            self.run.notify(
                f"sampler 'vllm': policy version {weights.version} is not loaded at {reason}; the other servers sample "
                "meanwhile, and no completion of it counts before it has the current version",
                "warning",
            )
        if old is not None and old.label != self.weight_push.served.label:
            await self._unload(self.weight_push, old)
        if old is None and not absent and isinstance(self.weight_push, AdapterPush):
            form, model = self.found.form, self.weight_push.model
            for probe in raw_logprob_probes():
                await require_raw_logprobs(self.client, form, PromptLogprobs(), model, probe, adapter=True)

    async def _unload(self, weight_push: WeightPush, old: PushedVersion | None) -> None:
        """Unload a version that is not used any more; a server that does not do it is no reason to end a run."""
        if old is None:
            return
        for reason in await weight_push.unload_old(old):
            self.run.notify(f"sampler 'vllm': the adapter {old.label} may still be loaded: {reason}", "warning")

    def _server_path(self, path: Path) -> Path:
        ours = self.run.outer_dir or self.run.run_dir
        if self.options.server_run_dir is None or ours is None:
            return path.resolve()
        return Path(self.options.server_run_dir) / path.resolve().relative_to(ours.resolve())

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of the policy of the last sync, in order of arrival."""
        async for outcome in as_completed(requests, self._sample):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores of given tokens under the policy of the last sync, in order of arrival."""
        async for outcome in as_completed(requests, self._score):
            yield outcome

    async def _sample(self, request: SampleRequest) -> Rollout | Failure:
        weight_push = self._ready()
        version, salt = weight_push.served.version, weight_push.cache_salt
        return await sample_completion(self._send, self.found.form, request, weight_push.model, version, salt)

    async def _score(self, request: ScoreRequest) -> Score | Failure:
        query = ScoreQuery(self._ready().model, request.prompt_ids, request.token_ids, request.topk)
        async with self._scoring:
            scored = await score_tokens(self._send, request, PromptLogprobs(), query, request.teacher)
        return scored if isinstance(scored, Failure) else as_score(request, scored)

    async def _send(
        self, request: SampleRequest | ScoreRequest, path: str, payload: Mapping[str, JsonValue]
    ) -> Result | Failure:
        """A result that was surely computed with the version's weights; a server that lost them is given them again."""
        weight_push = self._ready()
        for _ in range(TRIES):
            seen = {root: weight_push.repairs(root) for root in self.client.roots}
            try:
                result = await self.client.post(path, payload)
                if await self._is_current(result, request, seen[result.root]):
                    return result
                lost_by = result.root
            except RefusedError as error:
                if error.status != NOT_FOUND:
                    return failure_of(request, error)
                lost_by = error.root
            except UnansweredError as error:
                return failure_of(request, error)
            await weight_push.repair(lost_by, seen[lost_by])
        return Failure(
            request,
            f"the servers lost the weights of version {weight_push.served.version} again and again",
            retryable=True,
        )

    async def _is_current(self, result: Result, request: SampleRequest | ScoreRequest, seen: int) -> bool:
        """Whether the version's weights made a result: it says so itself, or its server is asked now."""
        weight_push = self._ready()
        if isinstance(request, SampleRequest) and isinstance(self.found.form, TokenCompletions):
            versions = weight_versions(result.value, f"completion {request.key}")
            return weight_push.sampled_it_all(result.root, versions)
        return await weight_push.holds_since(result.root, seen)

    def _ready(self) -> WeightPush:
        if self.weight_push is None:
            raise RuntimeError("sampler 'vllm' is used before its first sync")
        return self.weight_push
