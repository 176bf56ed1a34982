"""What can be asked for completions, and rollouts and scores out of what the SDK returns, with all its gaps checked.

Logprobs. The service sends two with each sampled token: `logprob`, the log-softmax of the model's own logits, at
temperature 1 and over the whole vocabulary, which the SDK calls `inference_logprobs`; and `sampling_logprob`, that of
the distribution that was sampled, after temperature, top-p and top-k. distillkit's rule is the first, for rollouts and
for scores alike. Where they come back missing, null, too few, or beside other ids than ours, the run ends.

Seeds are sent with each request; the service does not promise to honour them, so two runs of one config differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillkit.arrays import LOGPROB_ROUNDING, FloatArray, logprob_array, token_ids
from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened
from distillkit.records import Failure, FinishReason, Rollout, Score, ScoreRequest
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.fireworks.candidates import sdk_ids, top_arrays
from distillkit_builtin.fireworks.request_failures import failure_of
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.remote.completion_length import require_own_limit
from distillkit_builtin.remote.request_fields import FIREWORKS

SEEDS = 2**31
FINISHED: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


@dataclass(slots=True)
class Endpoint:
    """A deployment or model that can be asked, with the window of requests that it is sent at once."""

    sampler: Any
    controller: Any

    async def close(self) -> None:
        """Close its connections. On the event loop that used them: the SDK's own `close` only schedules this."""
        client = self.sampler._async_client
        if client is not None:
            await client.aclose()
        self.sampler.close()


async def sample_completion(
    endpoint: Endpoint, request: SampleRequest, version: int, tokenizer: HFTokenizer, timeout: float
) -> Rollout | Failure:
    """One completion.

    Args:
        endpoint: where the student is served.
        request: prompt, seed and sampling parameters.
        version: of the policy that is served there.
        tokenizer: for the rollout's text.
        timeout: seconds of one attempt; the SDK makes up to seven.

    Returns:
        A Failure where the service could not give this one.

    Raises:
        AlignmentError: if ids or logprobs are not those of the prompt that was sent.
        RunFailedError: if the service refuses the key.
    """
    params = request.params
    prompt = request.prompt_ids.tolist()
    try:
        result = await endpoint.sampler.sample_with_prompt_tokens_result(
            prompt,
            **{
                **FIREWORKS,
                "temperature": params.temperature,
                "top_p": params.top_p,
                "top_k": params.top_k,
            },
            max_tokens=params.max_tokens,
            stop=_stops(params, tokenizer),
            seed=request.seed % SEEDS,
            logprobs=True,
            http_timeout=timeout,
        )
    except Exception as error:  # noqa: BLE001 - read there, and raised again if it is not of this request alone
        return failure_of(request, error)
    return _rollout(request, version, tokenizer, result.completions)


def _stops(params: SamplingParams, tokenizer: HFTokenizer) -> list[str] | None:
    """What is to end a completion, but for the model's own ends, which the service knows: it takes texts alone."""
    own = tokenizer.eos_ids
    return [*params.stop, *(tokenizer.show([index]) for index in params.stop_ids if index not in own)] or None


def _rollout(
    request: SampleRequest, version: int, tokenizer: HFTokenizer, completions: Sequence[Any]
) -> Rollout | Failure:
    """What the service sampled, checked. Raises AlignmentError."""
    prompt = request.prompt_ids.tolist()
    what = f"completion {request.key}"
    completion = _only_completion(what, completions)
    _require_prompt(what, completion, prompt)
    ids = sdk_ids(what, completion.full_tokens[len(prompt) :])
    if not ids:
        return Failure(request, "the service sampled no token at all", retryable=False)
    reason = FINISHED.get(str(completion.finish_reason))
    if reason is None:
        return Failure(
            request, f"the completion ended by {shortened(repr(completion.finish_reason), 200)}", retryable=True
        )
    require_own_limit(len(ids), reason, request, what, "the service limits completions to that by itself")
    logprobs = _logprobs(what, completion.inference_logprobs, len(ids))
    return Rollout(request, version, token_ids(ids), logprobs, reason, tokenizer.decode(ids))


async def score_completion(endpoint: Endpoint, request: ScoreRequest, timeout: float) -> Score | Failure:
    """The logprobs of a given response.

    Args:
        endpoint: where the teacher is served.
        request: prompt and response.
        timeout: seconds of one attempt; the SDK makes up to seven.

    Returns:
        A Failure where the service could not give this one.

    Raises:
        AlignmentError: if ids or logprobs are not those of prompt and response that were sent.
        RunFailedError: if the service refuses the key.
    """
    prompt, response = request.prompt_ids.tolist(), request.token_ids.tolist()
    full = [*prompt, *response]
    try:
        result = await endpoint.sampler.sample_with_prompt_tokens_result(
            full, **_scoring(request.topk), max_tokens=1, echo=True, logprobs=True, http_timeout=timeout
        )
    except Exception as error:  # noqa: BLE001 - read there, and raised again if it is not of this request alone
        return failure_of(request, error)
    what = f"score of {request.key} by teacher {request.teacher!r}"
    completion = _only_completion(what, result.completions)
    _require_prompt(what, completion, full)
    # The SDK drops the first row, which is conditioned on nothing: entry i is the logprob of token i + 1.
    count, start = len(full) - 1 + completion.completion_len, len(prompt) - 1
    rows = _logprobs(what, completion.inference_logprobs, count)
    ours = slice(start, start + len(response))
    echoed = sdk_ids(what, completion.full_tokens[len(prompt) : len(full)])
    arrays = top_arrays(what, completion, count, ours, request.topk) if request.topk else {}
    return Score(request, logprob_array(rows[ours]), token_ids(echoed), arrays=arrays)


def _scoring(topk: int) -> dict[str, Any]:
    """The temperature is of the token behind the scored ones alone, which the public recipe takes greedily too."""
    more: dict[str, Any] = {"top_logprobs": topk} if topk else {}
    return {**FIREWORKS, "temperature": 0.0, **more}


def _only_completion(what: str, completions: Sequence[Any]) -> Any:  # noqa: ANN401 - the SDK's SampledCompletion
    if len(completions) != 1:
        raise AlignmentError(f"{what}: {len(completions)} completions came back for one request")
    return completions[0]


def _require_prompt(what: str, completion: Any, sent: Sequence[int]) -> None:  # noqa: ANN401 - the SDK's SampledCompletion
    """The SDK takes the prompt that the service says it read for the one that was sent."""
    read = completion.full_tokens[: completion.prompt_len]
    if read == sent:
        return
    if len(read) != len(sent):
        raise AlignmentError(f"{what}: the service read {len(read)} prompt tokens, {len(sent)} were sent")
    at = next(i for i, (ours, theirs) in enumerate(zip(sent, read, strict=True)) if ours != theirs)
    raise AlignmentError(f"{what}: the service read id {read[at]} as prompt token {at}, {sent[at]} was sent")


def _logprobs(what: str, values: Sequence[float] | None, count: int) -> FloatArray:
    if values is None:  # the SDK gives None for the whole list if one of them is null
        raise AlignmentError(f"{what}: logprobs are missing, or one of them is null")
    if len(values) != count:
        raise AlignmentError(f"{what}: {len(values)} logprobs came back for {count} tokens")
    high = [at for at, value in enumerate(values) if not value <= LOGPROB_ROUNDING]  # NaN is not either
    if high:
        raise AlignmentError(f"{what}: logprob {high[0]} is {values[high[0]]:g}")
    with np.errstate(over="ignore"):  # what becomes minus infinity is refused as such
        return logprob_array(np.asarray(values, dtype=np.float32))
