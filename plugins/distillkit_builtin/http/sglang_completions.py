"""Completions of SGLang's `/generate`: token ids in, token ids, their logprobs and the labels of the weights out.

SGLang reports the logprobs of what it samples at the temperature that sampled it, unless it was started with
`SGLANG_RETURN_ORIGINAL_LOGPROB=1`; then they are log-softmax at temperature 1 before top-p and top-k, which is
distillkit's rule (`sglang/srt/layers/sampler.py`, 0.5.23). `/v1/completions` would give the same ids and logprobs, but
takes any name for that of its base model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.errors import AlignmentError
from distillkit.records import Failure, Rollout
from distillkit.types import SampleRequest
from distillkit_builtin.http.dialects.dialect import (
    TokenId,
    require_length,
    require_prompt_length,
    validated,
)
from distillkit_builtin.http.dialects.sglang import Triple, best_of
from distillkit_builtin.http.how_to_start import SGLANG, HowToStart
from distillkit_builtin.http.sampled import SampledTokens, rollout_of
from distillkit_builtin.http.weight_spans import WeightSpan, versions_of
from distillkit_builtin.remote.candidates import TopK
from distillkit_builtin.remote.generate_fields import GENERATE, GENERATE_BODY


class _Finish(BaseModel):
    type: str


class _Meta(BaseModel):
    finish_reason: _Finish | None = None
    output_token_logprobs: list[Triple] | None = None
    output_top_logprobs: list[list[Triple] | None] | None = None
    prompt_tokens: int | None = None
    """How many ids of the prompt it read: fewer than were sent with `--allow-auto-truncate`."""
    weight_version: str | None = None
    weight_versions: list[WeightSpan] | None = None


class _Response(BaseModel):
    text: str = ""
    output_ids: list[TokenId] | None = None
    meta_info: _Meta


_RESPONSE = TypeAdapter(_Response)


@dataclass(frozen=True, slots=True)
class SGLangCompletions:
    """`POST /generate`, of the base model or of an adapter."""

    path: ClassVar[str] = "/generate"
    start: ClassVar[HowToStart] = SGLANG
    adapter: bool = False
    """Whether the model that is asked for is an adapter; `/generate` knows one base model, and no name of it."""

    def payload(self, request: SampleRequest, model: str, cache_salt: str | None = None) -> dict[str, JsonValue]:
        """The request's body. The seed has an effect on a server with `--enable-deterministic-inference` alone."""
        params = request.params
        sampling: dict[str, JsonValue] = {
            **GENERATE,
            "max_new_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k or GENERATE["top_k"],
            "sampling_seed": request.seed,
        }
        if params.stop:
            sampling["stop"] = list(params.stop)
        if params.stop_ids:
            sampling["stop_token_ids"] = list(params.stop_ids)
        if params.stop or params.stop_ids:
            sampling["no_stop_trim"] = True  # of the text; the ids hold what ended a completion in any case
        payload: dict[str, JsonValue] = {
            **GENERATE_BODY,
            "input_ids": request.prompt_ids.tolist(),
            "sampling_params": sampling,
            "return_logprob": True,
            "logprob_start_len": -1,
            "top_logprobs_num": request.wanted.get("topk", 0),
            "lora_path": model if self.adapter else None,
        }
        return payload if cache_salt is None else {**payload, "cache_salt": cache_salt}

    def parse(self, body: JsonValue, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
        """The completion, as sampled by policy `version`; each logprob comes with its id, which must be the token's."""
        what = f"completion {request.key}"
        response = validated(_RESPONSE, body, what)
        ids, meta = response.output_ids, response.meta_info
        if ids is None:
            raise AlignmentError(f"{what}: the response holds no output_ids")
        if meta.output_token_logprobs is None:
            raise AlignmentError(f"{what}: the response holds no output_token_logprobs")
        require_length(meta.output_token_logprobs, len(ids), "logprobs")
        for at, (index, (_, other, _)) in enumerate(zip(ids, meta.output_token_logprobs, strict=True)):
            if other != index:
                raise AlignmentError(f"{what}: token {at} is id {index}, and its logprob that of {other}")
        try:
            require_prompt_length(meta.prompt_tokens, len(request.prompt_ids))
            topk = _topk(meta.output_top_logprobs or [], len(ids), request)
        except AlignmentError as error:
            raise AlignmentError(f"{what}: {error}") from error
        said = SampledTokens(
            model=model,  # it names none
            ids=ids,
            logprobs=[logprob for logprob, _, _ in meta.output_token_logprobs],
            finish_reason=None if meta.finish_reason is None else meta.finish_reason.type,
            text=response.text,
            start=SGLANG,
            topk=topk,
        )
        return rollout_of(said, request, model, version, what)


def sglang_weight_versions(body: JsonValue, what: str) -> frozenset[str]:
    """The labels of all weights that computed an answer of `/generate`.

    Raises:
        AlignmentError: that begins with `what`, if it does not say them, or not of every token.
    """
    response = validated(_RESPONSE, body, what)
    meta = response.meta_info
    if meta.weight_version is None:
        raise AlignmentError(f"{what}: the response names no weight_version; use SGLang 0.5.23 or newer")
    if meta.weight_versions is None or not response.output_ids:
        return frozenset({meta.weight_version})
    return versions_of(meta.weight_versions, len(response.output_ids), what) | {meta.weight_version}


def _topk(top: Sequence[Sequence[Triple] | None], count: int, request: SampleRequest) -> TopK | None:
    topk = request.wanted.get("topk", 0)
    if not topk or not count:
        return None
    require_length(top, count, "output_top_logprobs")
    return best_of([entry or [] for entry in top], topk)
