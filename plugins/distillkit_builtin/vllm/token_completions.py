"""Completions of vLLM's token interface, whose answers say which version of the weights sampled each token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.errors import AlignmentError
from distillkit.records import Failure, Rollout
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.http.dialects.dialect import Logprob, TokenId, require_length, validated
from distillkit_builtin.http.how_to_start import VLLM, HowToStart
from distillkit_builtin.http.sampled import SampledTokens, rollout_of
from distillkit_builtin.http.weight_spans import WeightSpan, versions_of
from distillkit_builtin.remote.candidates import Candidates, TopK
from distillkit_builtin.remote.token_fields import TOKENS, TOKENS_BODY


class _Candidate(BaseModel):
    token_id: TokenId
    logprob: Logprob


class _Entry(_Candidate):
    top_logprobs: list[_Candidate] = []


class _Logprobs(BaseModel):
    content: list[_Entry] | None = None


class _Choice(BaseModel):
    token_ids: list[TokenId] | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    weight_versions: list[WeightSpan] | None = None


class _Response(BaseModel):
    model: str | None = None
    prompt_token_ids: list[TokenId] | None = None
    choices: list[_Choice]


_RESPONSE = TypeAdapter(_Response)


@dataclass(frozen=True, slots=True)
class TokenCompletions:
    """`POST /inference/v1/generate`, which vLLM 0.32 has with `--enable-scale-out`.

    The answer holds ids and no text, which is decoded here. vLLM puts the sampled token first among `top_logprobs` and
    cuts them to as many as were asked for: so one more is asked for than is wanted.
    """

    tokenizer: Tokenizer
    """The student's."""

    path: ClassVar[str] = "/inference/v1/generate"
    start: ClassVar[HowToStart] = VLLM

    def payload(self, request: SampleRequest, model: str, cache_salt: str | None = None) -> dict[str, JsonValue]:
        """The request's body; each request has its own seed, so it does not matter which others are in its batch."""
        params, topk = request.params, request.wanted.get("topk", 0)
        sampling: dict[str, JsonValue] = {
            **TOKENS,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k or TOKENS["top_k"],
            "seed": request.seed,
            "logprobs": topk + 1 if topk else 0,
            "stop": list(params.stop),
            "stop_token_ids": list(params.stop_ids),
            "detokenize": bool(params.stop),  # stop strings are looked for in the text
        }
        payload: dict[str, JsonValue] = {
            **TOKENS_BODY,
            "model": model,
            "token_ids": request.prompt_ids.tolist(),
            "sampling_params": sampling,
            "return_token_ids": True,
        }
        return payload if cache_salt is None else {**payload, "cache_salt": cache_salt}

    def parse(self, body: JsonValue, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
        """The completion, as sampled by policy `version`. Raises AlignmentError unless ids and logprobs are there."""
        what = f"completion {request.key}"
        response, choice = _read(body, what)
        ids = choice.token_ids
        if ids is None:
            raise AlignmentError(f"{what}: the response holds no token_ids")
        if choice.logprobs is None or choice.logprobs.content is None:
            raise AlignmentError(f"{what}: the response holds no logprobs")
        entries = choice.logprobs.content
        require_length(entries, len(ids), "logprobs")
        for at, (index, entry) in enumerate(zip(ids, entries, strict=True)):
            if entry.token_id != index:
                raise AlignmentError(f"{what}: token {at} is id {index}, and its logprob is that of {entry.token_id}")
        try:
            topk = _topk(entries, request)
        except AlignmentError as error:
            raise AlignmentError(f"{what}: {error}") from error
        said = SampledTokens(
            model=response.model,
            ids=ids,
            logprobs=[entry.logprob for entry in entries],
            finish_reason=choice.finish_reason,
            text=self.tokenizer.decode(ids),
            prompt_ids=response.prompt_token_ids,
            topk=topk,
        )
        return rollout_of(said, request, model, version, what)


def weight_versions(body: JsonValue, what: str) -> frozenset[str]:
    """The labels of all weights that sampled a completion's tokens; empty for a completion without tokens.

    Raises:
        AlignmentError: that begins with `what`, if a token's is not said.
    """
    _, choice = _read(body, what)
    return versions_of(choice.weight_versions or (), len(choice.token_ids or ()), what)


def _read(body: JsonValue, what: str) -> tuple[_Response, _Choice]:
    response = validated(_RESPONSE, body, what)
    require_length(response.choices, 1, "choices")
    return response, response.choices[0]


def _topk(entries: Sequence[_Entry], request: SampleRequest) -> TopK | None:
    topk = request.wanted.get("topk", 0)
    if not topk or not entries:
        return None
    named = [entry.top_logprobs for entry in entries]
    ids = (each.token_id for top in named for each in top)
    return Candidates.of([len(top) for top in named], ids, (each.logprob for top in named for each in top)).best(topk)
