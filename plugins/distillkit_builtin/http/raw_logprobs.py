"""Whether the logprobs that a server reports of what it samples are the model's own, measured when a run starts."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.frozen import frozen
from distillkit.records import Failure
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.http.dialects.dialect import LOGPROB_TOLERANCE, Dialect, ScoreQuery, parse_scores
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.remote.service_client import ServiceClient

PROBES = (SamplingParams(max_tokens=4, temperature=0.3), SamplingParams(max_tokens=4, temperature=2.0))
"""A peaked distribution hardly changes when sharpened, a flat one hardly when flattened; vLLM allows at most 2."""
PROBE_IDS = (1, 2, 3, 4)
"""Any prompt does: the server's samples are compared with its own scores."""


def raw_logprob_probes(wanted: Mapping[str, int] = frozen({})) -> Sequence[SampleRequest]:
    """What `require_raw_logprobs` is asked with, at temperatures far from 1 on both sides."""
    return [
        SampleRequest(SampleKey("probe", 0, sample), token_ids(PROBE_IDS), sample, params, wanted=wanted)
        for sample, params in enumerate(PROBES)
    ]


async def require_raw_logprobs(
    client: ServiceClient,
    form: CompletionForm,
    dialect: Dialect,
    model: str,
    request: SampleRequest,
    *,
    adapter: bool = False,
    absent: Collection[str] = (),
) -> None:
    """Raise InputError if a replica's logprobs of what it sampled are not its scores of the same tokens.

    They are not where it reports those at the sampling temperature instead of at 1; nor, of an `adapter`, where vLLM
    leaves a part of it out of prompt logprobs (vllm-project/vllm#51594: a LoRA on the head, in 0.32). Replicas that are
    `absent` are not asked.
    """
    for root in (root for root in client.roots if root not in absent):
        result = await client.post_to(root, form.path, form.payload(request, model))
        sampled = form.parse(result.value, request, model, 0)
        if isinstance(sampled, Failure):
            raise InputError(f"{root}: {sampled.reason}")
        query = ScoreQuery(model, request.prompt_ids, sampled.token_ids, adapter=adapter)
        result = await client.post_to(root, dialect.path, dialect.payload(query))
        scored = parse_scores(dialect, result.value, query, f"{root} scores its own completion")
        apart = float(np.abs(scored.logprobs - sampled.logprobs).max())
        if apart > LOGPROB_TOLERANCE:
            raise InputError(
                f"{root} reports logprobs of what it sampled that differ by {apart:.2f} nats from its own scores of "
                f"the same tokens; {form.start.raw_of_adapters if adapter else form.start.raw}"
            )
