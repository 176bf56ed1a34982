"""Completions with ids and logprobs, out of what a server sends, with everything checked.

vLLM's `logprobs` are those of the model's own distribution (`--logprobs-mode raw_logprobs`, its default): log-softmax
at temperature 1 before top-p and top-k, which is distillkit's rule. `require_raw_logprobs` finds a server that was
started otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.arrays import Array, logprob_array, token_ids
from distillkit.errors import AlignmentError, InputError, RunFailedError
from distillkit.files.strict_json import shortened
from distillkit.frozen import frozen
from distillkit.records import Failure, FinishReason, Rollout, ScoreRequest
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.http.completion_dialect import CompletionDialect
from distillkit_builtin.http.dialects.dialect import (
    LOGPROB_TOLERANCE,
    Dialect,
    Logprob,
    ScoreQuery,
    TokenId,
    UnprovedError,
    parse_scores,
    require_length,
    require_possible,
    validated,
)
from distillkit_builtin.http.dialects.echo import named_by_id
from distillkit_builtin.remote.completion_length import require_own_limit
from distillkit_builtin.remote.request_fields import COMPLETIONS, refused_field
from distillkit_builtin.remote.results import RefusedError, UnansweredError
from distillkit_builtin.remote.service_client import ServiceClient

PATH = "/v1/completions"
FINISHED: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
REFUSED_KEY = (401, 403)
NO_IDS = "the server does not say which token ids it sampled (`return_token_ids`); use a vLLM that knows that option"
RAW = "start vLLM with --logprobs-mode raw_logprobs"
ADAPTER_LEFT_OUT = (
    f"{RAW}; if it is, vLLM leaves a LoRA on the head (lm_head) out of the logprobs of prompts: merge this adapter "
    "into its base model, or train one without the head"
)
PLAIN = (
    "start vLLM with --generation-config vllm and without --override-generation-config and logits processors, and look "
    "for a proxy before it that changes requests"
)
PROBES = (SamplingParams(max_tokens=4, temperature=0.3), SamplingParams(max_tokens=4, temperature=2.0))
"""A peaked distribution hardly changes when sharpened, a flat one hardly when flattened; vLLM allows at most 2."""
PROBE_IDS = (1, 2, 3, 4)
"""Any prompt does: the server's samples are compared with its own scores."""
OTHER_LIMITS = (
    "start vLLM with --generation-config vllm (max_new_tokens of a generation config limits every request), and with a "
    "--max-model-len that holds prompt and completion"
)


class _Logprobs(BaseModel):
    token_logprobs: list[Logprob | None]
    top_logprobs: object = None
    """Also there where none are wanted, and read where they are."""


class _Choice(BaseModel):
    text: str
    finish_reason: str | None
    logprobs: _Logprobs | None = None
    token_ids: list[TokenId] | None = None
    prompt_token_ids: list[TokenId] | None = None


class _Response(BaseModel):
    model: str
    choices: list[_Choice]


_RESPONSE = TypeAdapter(_Response)
_TOP = TypeAdapter(list[dict[str, Logprob] | None])


def completion_payload(request: SampleRequest, model: str) -> dict[str, JsonValue]:
    """The request's body; each request has its own seed, so it does not matter which others are in its batch."""
    params, topk = request.params, request.wanted.get("topk", 0)
    payload: dict[str, JsonValue] = {
        **COMPLETIONS,
        "model": model,
        "prompt": request.prompt_ids.tolist(),
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k or COMPLETIONS["top_k"],
        "seed": request.seed,
        "logprobs": max(1, topk),
        "return_token_ids": True,
    }
    if topk:
        payload["return_tokens_as_token_ids"] = True
    if params.stop:
        payload["stop"] = list(params.stop)
    if params.stop_ids:
        payload["stop_token_ids"] = list(params.stop_ids)
    if params.stop or params.stop_ids:
        payload["include_stop_str_in_output"] = True  # in the text; the ids hold what ended a completion in any case
    return payload


def parse_completion(body: JsonValue, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
    """The completion, as sampled by policy `version`. Raises AlignmentError unless ids and logprobs are all there."""
    what = f"completion {request.key}"
    response = validated(_RESPONSE, body, what)
    if response.model != model:
        raise AlignmentError(
            f"{what}: the response is of model {shortened(repr(response.model), 200)}, not of {model!r}"
        )
    require_length(response.choices, 1, "choices")
    choice = response.choices[0]
    if choice.token_ids is None:
        raise AlignmentError(f"{what}: {NO_IDS}")
    if choice.logprobs is None:
        raise AlignmentError(f"{what}: the response holds no logprobs")
    if choice.prompt_token_ids is not None and choice.prompt_token_ids != request.prompt_ids.tolist():
        raise AlignmentError(f"{what}: the server was given other prompt tokens than were sent")
    if not choice.token_ids:
        return Failure(request, "the server sampled no token at all")
    reason = FINISHED.get(choice.finish_reason or "")
    if reason is None:
        ended = shortened(repr(choice.finish_reason), 200)
        return Failure(request, f"the completion ended by {ended}", retryable=True)
    require_own_limit(len(choice.token_ids), reason, request, what, OTHER_LIMITS)
    logprobs = choice.logprobs.token_logprobs
    require_length(logprobs, len(choice.token_ids), "logprobs")
    if None in logprobs:
        raise AlignmentError(f"{what}: the logprob of token {logprobs.index(None)} is null")
    values = np.array(logprobs, np.float64)
    try:
        require_possible(values)
        arrays = _topk(choice.logprobs.top_logprobs, len(values), request)
    except (AlignmentError, UnprovedError) as error:
        raise AlignmentError(f"{what}: {error}") from error
    ids, sampled = token_ids(choice.token_ids), logprob_array(values)
    return Rollout(request, version, ids, sampled, reason, choice.text, arrays=arrays)


def _topk(top: object, count: int, request: SampleRequest) -> Mapping[str, Array]:
    """The arrays of `topk`, where it is wanted. vLLM names the sampled token too: K or K + 1 entries a token."""
    topk = request.wanted.get("topk", 0)
    if not topk:
        return {}
    if top is None:
        raise AlignmentError("the response holds no top_logprobs")
    found = validated(_TOP, top, "top_logprobs")
    require_length(found, count, "top_logprobs")
    best = named_by_id(found).best(topk)
    return {"topk_ids": best.ids, "topk_logprobs": best.logprobs}


@dataclass(frozen=True, slots=True)
class Completions:
    """`POST /v1/completions` of vLLM, and of servers that take after it."""

    path: ClassVar[str] = PATH
    raw: ClassVar[str] = RAW
    plain: ClassVar[str] = PLAIN

    def payload(self, request: SampleRequest, model: str) -> dict[str, JsonValue]:
        """As `completion_payload`."""
        return completion_payload(request, model)

    def parse(self, body: JsonValue, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
        """As `parse_completion`."""
        return parse_completion(body, request, model, version)


VLLM = Completions()


def failure_of(request: SampleRequest | ScoreRequest, error: RefusedError | UnansweredError) -> Failure:
    """The Failure of a request without a result. Raises RunFailedError for a bad key, which no request survives."""
    if isinstance(error, UnansweredError):
        return Failure(request, error.reason, retryable=True)
    if error.status in REFUSED_KEY:
        raise RunFailedError(f"{error.root} refuses the key: {error.message}") from error
    return Failure(request, f"{error.root} answered {error.status}: {error.message}{refused_field(error.message)}")


def raw_logprob_probes(wanted: Mapping[str, int] = frozen({})) -> Sequence[SampleRequest]:
    """What `require_raw_logprobs` is asked with, at temperatures far from 1 on both sides."""
    return [
        SampleRequest(SampleKey("probe", 0, sample), token_ids(PROBE_IDS), sample, params, wanted=wanted)
        for sample, params in enumerate(PROBES)
    ]


async def require_raw_logprobs(
    client: ServiceClient,
    dialect: Dialect,
    model: str,
    request: SampleRequest,
    *,
    adapter: bool = False,
    by: CompletionDialect = VLLM,
) -> None:
    """Raise InputError if a replica's logprobs of what it sampled are not its scores of the same tokens.

    They are not where it reports those at the sampling temperature instead of at 1; nor, of an `adapter`, where vLLM
    leaves a part of it out of prompt logprobs (vllm-project/vllm#51594: a LoRA on the head, in 0.32).
    """
    for root in client.roots:
        result = await client.post_to(root, by.path, by.payload(request, model))
        sampled = by.parse(result.value, request, model, 0)
        if isinstance(sampled, Failure):
            raise InputError(f"{root}: {sampled.reason}")
        query = ScoreQuery(model, request.prompt_ids, sampled.token_ids, adapter=adapter)
        result = await client.post_to(root, dialect.path, dialect.payload(query))
        scored = parse_scores(dialect, result.value, query, f"{root} scores its own completion")
        apart = float(np.abs(scored.logprobs - sampled.logprobs).max())
        if apart > LOGPROB_TOLERANCE:
            raise InputError(
                f"{root} reports logprobs of what it sampled that differ by {apart:.2f} nats from its own scores of "
                f"the same tokens; {ADAPTER_LEFT_OUT if adapter and by == VLLM else by.raw}"
            )
