"""The live side of sampler `sglang`: how its servers are asked, and which weights an answer is of."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Failure, ScoreRequest, Weights
from distillkit.types import SampleRequest
from distillkit_builtin.http.dialects.dialect import Dialect
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.raw_logprobs import PROBE_IDS, raw_logprob_probes, require_raw_logprobs
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.http.sglang_completions import SGLangCompletions, sglang_weight_versions
from distillkit_builtin.http.untouched import require_untouched_sampling
from distillkit_builtin.http.weight_spans import only_version
from distillkit_builtin.pushed.adapter_push import AdapterPush
from distillkit_builtin.pushed.live_sampler import NAME, LivePushedSampler
from distillkit_builtin.pushed.options import PushedSamplerOptions
from distillkit_builtin.pushed.weight_push import WeightPush
from distillkit_builtin.remote.results import RefusedError, Result, error_context
from distillkit_builtin.remote.service_client import ServiceClient
from distillkit_builtin.sglang.each_server import require_usable
from distillkit_builtin.sglang.push_kinds import SGLangAdapterPush, SGLangWeightsPush

NEVER_LOADED = "has never been loaded"
"""In what SGLang responds to a request for an adapter that it does not know."""
WHO = "sampler 'sglang'"


@dataclass(slots=True)
class LiveSGLangSampler(LivePushedSampler):
    """Completions from SGLang servers that are given each policy version."""

    plugin: ClassVar[str] = "sglang"
    dialect: ClassVar[Dialect] = SGLang()

    @classmethod
    async def open(cls, run: RunContext, options: PushedSamplerOptions, base_model: str) -> "LiveSGLangSampler":
        """Connect. Raises InputError if a server is not one that the run can sample from.

        It must serve the model, at a length that prompts and completions fit in, without watermarks, and report the
        logprobs at temperature 1 of what it samples from.
        """
        wanted = {name: amount for name, amount in run.sampler_needs.items() if name == "topk"}
        probes, form = raw_logprob_probes(wanted), SGLangCompletions()
        with error_context(WHO):
            tell = run.notify_as(WHO)
            client = ServiceClient.open(options, NAME, tell=tell)
            try:
                version = await require_usable(client, base_model, run, tell)
                for probe in probes:
                    await require_raw_logprobs(client, form, SGLang(), base_model, probe)
                await require_untouched_sampling(client, form, base_model, PROBE_IDS)
                versions = await _base_versions(client, base_model, probes)
            except BaseException:
                await client.close()
                raise
        return cls(options, run, base_model, client, secrets.token_hex(3), form, versions, version)

    @property
    def form(self) -> CompletionForm:
        """By the adapter's name, or of the base model whose weights were replaced."""
        return SGLangCompletions(adapter=isinstance(self.weight_push, AdapterPush))

    def push_of(self, weights: Weights) -> type[WeightPush]:
        """A LoRA as an adapter, else all weights."""
        return SGLangAdapterPush if weights.format == "peft" else SGLangWeightsPush

    def is_lost(self, error: RefusedError, path: str) -> bool:
        """Whether the adapter is one that the server, since its start, was not given."""
        return NEVER_LOADED in error.message

    async def is_current(self, result: Result, request: SampleRequest | ScoreRequest, path: str, seen: int) -> bool:
        """Whether the version's weights made a result: it says so itself, and they were not given again meanwhile."""
        what = "completion" if isinstance(request, SampleRequest) else "score of"
        versions = sglang_weight_versions(result.value, f"{what} {request.key}")
        weight_push = self.ready()
        return weight_push.sampled_it_all(result.root, versions) and await weight_push.holds_since(result.root, seen)


async def _base_versions(client: ServiceClient, model: str, probes: Sequence[SampleRequest]) -> Mapping[str, str]:
    """What each server calls its weights. Raises InputError if one samples nothing, AlignmentError for two names."""
    form, versions = SGLangCompletions(), {}
    for root in client.roots:
        body = (await client.post_to(root, form.path, form.payload(probes[0], model))).value
        sampled = form.parse(body, probes[0], model, 0)
        if isinstance(sampled, Failure):
            raise InputError(f"{root}: {sampled.reason}")
        what = f"{root}: completion {probes[0].key}"
        versions[root] = only_version(sglang_weight_versions(body, what), what)
    return versions
