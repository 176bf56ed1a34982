"""Completions by SGLang's native `/generate`: token ids in, token ids and logprobs out.

SGLang reports the logprobs of what it samples at the temperature that sampled it, unless it was started with
`SGLANG_RETURN_ORIGINAL_LOGPROB=1`; then they are log-softmax at temperature 1 before top-p and top-k, which is
distillkit's rule (`sglang/srt/layers/sampler.py`, 0.5.23). `/v1/completions` would give the same, and does not look at
which model is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.arrays import Array, logprob_array, token_ids
from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened
from distillkit.records import Failure, FinishReason, Rollout
from distillkit.types import SampleRequest
from distillkit_builtin.http.dialects.dialect import TokenId, require_length, require_possible, validated
from distillkit_builtin.http.dialects.sglang import Triple, best_of
from distillkit_builtin.remote.completion_length import require_own_limit
from distillkit_builtin.remote.generate_fields import GENERATE, GENERATE_BODY

FINISHED: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
OTHER_LIMITS = "start SGLang with a --context-length that holds prompt and completion"


class _Finish(BaseModel):
    type: str
    message: str = ""


class _Meta(BaseModel):
    finish_reason: _Finish | None = None
    output_token_logprobs: list[Triple] | None = None
    output_top_logprobs: list[list[Triple] | None] | None = None


class _Response(BaseModel):
    text: str = ""
    output_ids: list[TokenId] | None = None
    meta_info: _Meta


_RESPONSE = TypeAdapter(_Response)


@dataclass(frozen=True, slots=True)
class SGLangCompletions:
    """`POST /generate`, of the base model or of an adapter."""

    path: ClassVar[str] = "/generate"
    raw: ClassVar[str] = (
        "SGLang reports them at the sampling temperature by default; start it with SGLANG_RETURN_ORIGINAL_LOGPROB=1 in "
        "its environment"
    )
    plain: ClassVar[str] = (
        "start SGLang without watermarks and logits processors, and look for a proxy before it that changes requests"
    )
    adapter: bool = False
    """Whether the model that is asked for is an adapter; `/generate` knows one base model, and no name of it."""

    def payload(self, request: SampleRequest, model: str) -> dict[str, JsonValue]:
        """Logprobs of the output alone. The seed has an effect with `--enable-deterministic-inference` alone."""
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
        return {
            **GENERATE_BODY,
            "input_ids": request.prompt_ids.tolist(),
            "sampling_params": sampling,
            "return_logprob": True,
            "logprob_start_len": -1,
            "top_logprobs_num": request.wanted.get("topk", 0),
            "lora_path": model if self.adapter else None,
        }

    def parse(self, body: JsonValue, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
        """The completion; each logprob comes with its id, which must be that of the token."""
        what = f"completion {request.key}"
        response = validated(_RESPONSE, body, what)
        ids, meta = response.output_ids, response.meta_info
        if ids is None:
            raise AlignmentError(f"{what}: the response holds no output_ids")
        if meta.output_token_logprobs is None:
            raise AlignmentError(f"{what}: the response holds no output_token_logprobs")
        ended = meta.finish_reason or _Finish(type="nothing that it names")
        reason = FINISHED.get(ended.type)
        if reason is None:
            said = shortened(repr(" ".join(filter(None, (ended.type, ended.message)))), 200)
            return Failure(request, f"the completion ended by {said}", retryable=True)
        if not ids:
            return Failure(request, "the server sampled no token at all")
        require_own_limit(len(ids), reason, request, what, OTHER_LIMITS)
        try:
            values = _logprobs(meta.output_token_logprobs, ids)
            arrays = _topk(meta, len(ids), request)
        except AlignmentError as error:
            raise AlignmentError(f"{what}: {error}") from error
        return Rollout(request, version, token_ids(ids), values, reason, response.text, arrays=arrays)


def _logprobs(triples: list[Triple], ids: list[int]) -> Array:
    """[n] the logprobs of `ids`, one triple each. Raises AlignmentError."""
    require_length(triples, len(ids), "logprobs")
    for at, (logprob, index, _) in enumerate(triples):
        if index != ids[at]:
            raise AlignmentError(f"token {at} is id {ids[at]}, and its logprob that of id {index}")
        if logprob is None:
            raise AlignmentError(f"the logprob of token {at} is null")
    values = np.array([logprob for logprob, _, _ in triples], np.float64)
    require_possible(values)
    return logprob_array(values)


def _topk(meta: _Meta, count: int, request: SampleRequest) -> Mapping[str, Array]:
    topk = request.wanted.get("topk", 0)
    if not topk:
        return {}
    top = meta.output_top_logprobs or []
    require_length(top, count, "output_top_logprobs")
    best = best_of([entry or [] for entry in top], topk)
    return {"topk_ids": best.ids, "topk_logprobs": best.logprobs}
