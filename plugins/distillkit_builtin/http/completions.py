"""Completions of `/v1/completions` with ids and logprobs, out of what a server sends, with everything checked.

vLLM's `logprobs` are those of the model's own distribution (`--logprobs-mode raw_logprobs`, its default): log-softmax
at temperature 1 before top-p and top-k, which is distillkit's rule. `raw_logprobs` finds a server that was started
otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.errors import AlignmentError, RunFailedError
from distillkit.frozen import frozen
from distillkit.records import Failure, Rollout, ScoreRequest
from distillkit.types import SampleRequest
from distillkit_builtin.http.dialects.dialect import Logprob, TokenId, UnprovedError, require_length, validated
from distillkit_builtin.http.dialects.echo import named_by_id
from distillkit_builtin.http.how_to_start import VLLM, HowToStart
from distillkit_builtin.http.sampled import SampledTokens, rollout_of
from distillkit_builtin.remote.candidates import TopK
from distillkit_builtin.remote.request_fields import COMPLETIONS
from distillkit_builtin.remote.results import RefusedError, UnansweredError, answered

NOT_ALLOWED: Mapping[int, str] = frozen({401: "refuses the key", 403: "does not allow this, by this key or at all"})
"""What a server says to every request alike, by status: vLLM answers 403 where an endpoint is switched off."""
NO_IDS = "the server does not say which token ids it sampled (`return_token_ids`); use a vLLM that knows that option"


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
    require_length(response.choices, 1, "choices")
    choice = response.choices[0]
    if choice.token_ids is None:
        raise AlignmentError(f"{what}: {NO_IDS}")
    if choice.logprobs is None:
        raise AlignmentError(f"{what}: the response holds no logprobs")
    try:
        topk = _topk(choice.logprobs.top_logprobs, len(choice.token_ids), request)
    except (AlignmentError, UnprovedError) as error:
        raise AlignmentError(f"{what}: {error}") from error
    said = SampledTokens(
        model=response.model,
        ids=choice.token_ids,
        logprobs=choice.logprobs.token_logprobs,
        finish_reason=choice.finish_reason,
        text=choice.text,
        prompt_ids=choice.prompt_token_ids,
        topk=topk,
    )
    return rollout_of(said, request, model, version, what)


def _topk(top: object, count: int, request: SampleRequest) -> TopK | None:
    """The top-k of `count` tokens, where it is wanted. vLLM names the sampled token too: K or K + 1 entries a token."""
    topk = request.wanted.get("topk", 0)
    if not topk or not count:
        return None
    if top is None:
        raise AlignmentError("the response holds no top_logprobs")
    found = validated(_TOP, top, "top_logprobs")
    require_length(found, count, "top_logprobs")
    return named_by_id(found).best(topk)


@dataclass(frozen=True, slots=True)
class Completions:
    """`POST /v1/completions`, which says nothing of the version of its weights."""

    path: ClassVar[str] = "/v1/completions"
    start: ClassVar[HowToStart] = VLLM

    def payload(self, request: SampleRequest, model: str, cache_salt: str | None = None) -> dict[str, JsonValue]:
        """`completion_payload`, with the salt where there is one."""
        salt: dict[str, JsonValue] = {} if cache_salt is None else {"cache_salt": cache_salt}
        return completion_payload(request, model) | salt

    def parse(self, body: JsonValue, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
        """As `parse_completion`."""
        return parse_completion(body, request, model, version)


def failure_of(request: SampleRequest | ScoreRequest, error: RefusedError | UnansweredError) -> Failure:
    """The Failure of a request without a result. Raises RunFailedError for what is not allowed, as with a bad key."""
    if isinstance(error, UnansweredError):
        return Failure(request, error.reason, retryable=True)
    if error.status in NOT_ALLOWED:
        raise RunFailedError(f"{error.root} {NOT_ALLOWED[error.status]}: {error.message}") from error
    return Failure(request, answered(error))
