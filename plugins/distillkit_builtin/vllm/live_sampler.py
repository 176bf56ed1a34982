"""The live side of sampler `vllm`: how its servers are asked, and which weights an answer is of."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Failure, Rollout, ScoreRequest, Weights
from distillkit.types import SampleRequest
from distillkit_builtin.http.completions import Completions, failure_of
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery, TokenLogprobs
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.gone_endpoint import EndpointGoneError, require_endpoint
from distillkit_builtin.http.options import more_logprobs
from distillkit_builtin.http.probe import server_version
from distillkit_builtin.http.raw_logprobs import PROBE_IDS, raw_logprob_probes, require_raw_logprobs
from distillkit_builtin.http.untouched import require_untouched_sampling
from distillkit_builtin.pushed.adapter_push import AdapterPush
from distillkit_builtin.pushed.live_sampler import NAME, LivePushedSampler
from distillkit_builtin.pushed.weight_push import WeightPush
from distillkit_builtin.remote.results import RefusedError, Result, UnansweredError, answered, error_context
from distillkit_builtin.remote.service_client import ServiceClient
from distillkit_builtin.vllm.completion_form import ASKED_AFTERWARDS, FormProbe
from distillkit_builtin.vllm.each_server import require_same_base, require_served
from distillkit_builtin.vllm.options import LOWEST_TEMPERATURE, VllmSamplerOptions
from distillkit_builtin.vllm.push_kinds import FullWeightsPush, VllmAdapterPush
from distillkit_builtin.vllm.token_completions import TokenCompletions, weight_versions

NOT_FOUND = 404


@dataclass(slots=True)
class LiveVllmSampler(LivePushedSampler):
    """Completions from vLLM servers that are given each policy version."""

    _scoring: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request for prompt logprobs at a time: vLLM 0.32 with --enable-lora (CPU build, punica's einsum) computes
    them for one sequence only, and its engine dies of a batch that holds two. Completions may be in the batch."""

    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    plugin: ClassVar[str] = "vllm"
    dialect: ClassVar[Dialect] = PromptLogprobs()

    @classmethod
    async def open(cls, run: RunContext, options: VllmSamplerOptions, base_model: str) -> "LiveVllmSampler":
        """Connect. Raises InputError if a server is not one that the run can sample from.

        It must serve the model, at a length that prompts and completions fit in, and report the logprobs at temperature
        1 of what it samples from.
        """
        wanted = cls._wanted(run)
        probes = raw_logprob_probes(wanted)
        with error_context("sampler 'vllm'"):
            tell = run.notify_as("sampler 'vllm'")
            client = ServiceClient.open(options, NAME, tell=tell)
            try:
                await require_served(client, base_model, run)
                first = FormProbe(client, base_model, probes[0])
                found = await first.found(run.tokenizer, options.max_logprobs, tell)
                for probe in probes:
                    await require_raw_logprobs(client, found.form, PromptLogprobs(), base_model, probe)
                await require_untouched_sampling(client, found.form, base_model, PROBE_IDS)
                version = await server_version(client)
            except RefusedError as error:
                await client.close()
                more = f"; for {wanted['topk']} top-k tokens: {more_logprobs(wanted['topk'])}" if wanted else ""
                raise InputError(f"{answered(error)}{more}") from error
            except BaseException:
                await client.close()
                raise
        nonce = secrets.token_hex(3)
        return cls(options, run, base_model, client, nonce, found.form, found.base_versions, version)

    def push_of(self, weights: Weights) -> type[WeightPush]:
        """A LoRA as an adapter, else all weights."""
        return VllmAdapterPush if weights.format == "peft" else FullWeightsPush

    def is_lost(self, error: RefusedError, path: str) -> bool:
        """Whether the model that was asked for is not there. The token interface can be done without."""
        if path == TokenCompletions.path:
            require_endpoint(error, path, self.ready().model)
        return error.status == NOT_FOUND

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """As every sampler's. Raises InputError for a temperature of an evaluator that vLLM raises without a word."""
        for request in requests:
            if 0.0 < request.params.temperature < LOWEST_TEMPERATURE:
                raise InputError(
                    f"sampler 'vllm': vLLM samples at temperature {LOWEST_TEMPERATURE:g} where it is asked for "
                    f"{request.params.temperature:g}; set sampling.temperature to 0, or {LOWEST_TEMPERATURE:g} or more"
                )
        async for outcome in LivePushedSampler.sample(self, requests):
            yield outcome

    async def _sample(self, request: SampleRequest) -> Rollout | Failure:
        """At `/v1/completions`, for this one and all that follow, once a server has the token interface no more."""
        try:
            return await LivePushedSampler._sample(self, request)
        except EndpointGoneError as gone:
            try:
                await self._do_without(gone)
            except (RefusedError, UnansweredError) as error:
                return failure_of(request, error)
        return await LivePushedSampler._sample(self, request)

    async def _do_without(self, gone: EndpointGoneError) -> None:
        """Ask at `/v1/completions` from now on, as a run that starts now would, once it is proved what a start proves.

        Raises:
            InputError: if what the servers sample there is not what they report.
            RunFailedError: if the base model below an adapter has other weights than when the run started.
        """
        async with self._changing, self._scoring:
            weight_push = self.ready()
            if not isinstance(self.base_form, TokenCompletions):
                return
            form, absent = Completions(), weight_push.absent
            try:
                for probe in raw_logprob_probes(self._wanted(self.run)):
                    await require_raw_logprobs(
                        self.client, form, PromptLogprobs(), self.base_model, probe, absent=absent
                    )
                await require_untouched_sampling(self.client, form, self.base_model, PROBE_IDS, absent=absent)
            except InputError as error:
                raise InputError(f"sampler 'vllm': {gone}, and cannot be asked elsewhere: {error}") from error
            if isinstance(weight_push, AdapterPush):
                await require_same_base(self.client, weight_push)
            self.base_form = form
            self.run.notify(f"sampler 'vllm': {gone}: {ASKED_AFTERWARDS}", "warning")

    @staticmethod
    def _wanted(run: RunContext) -> Mapping[str, int]:
        """What the run needs of each completion besides."""
        return {name: amount for name, amount in run.sampler_needs.items() if name == "topk"}

    async def scored(self, request: ScoreRequest, query: ScoreQuery) -> TokenLogprobs | Failure:
        """One request at a time."""
        async with self._scoring:
            return await LivePushedSampler.scored(self, request, query)

    async def is_current(self, result: Result, request: SampleRequest | ScoreRequest, path: str, seen: int) -> bool:
        """Whether the version's weights made a result: it says so itself, or its server is asked now."""
        weight_push = self.ready()
        if path == TokenCompletions.path:
            versions = weight_versions(result.value, f"completion {request.key}")
            return weight_push.sampled_it_all(result.root, versions)
        return await weight_push.holds_since(result.root, seen)
