"""Completions and scores by a sampling client of the SDK, with everything that came back checked.

Every sampling field stands in every request. `stop` is always a list: of ids alone, since servers take no mixture, and
an empty one ends at nothing, not even at the model's own end. Stop strings are looked for here, and a completion is cut
behind the token that completes one: what was sampled behind it depends on nothing that is kept.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillkit.arrays import LOGPROB_ROUNDING, FloatArray, logprob_array, token_ids
from distillkit.errors import AlignmentError, DistillkitError
from distillkit.files.strict_json import shortened
from distillkit.records import Failure, FinishReason, Rollout, Score, ScoreRequest
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.candidates import MINUS_INFINITY
from distillkit_builtin.remote.completion_length import require_own_limit
from distillkit_builtin.tinker.prefill import submit
from distillkit_builtin.tinker.scored_response import Asked, ResponseLogprobs, leading_nones, read_response
from distillkit_builtin.tinker.sdk import got
from distillkit_builtin.tinker.sdk_errors import failure_of

SEEDS = 2**31
FINISHED: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
OWN_LIMIT = "the server limits completions by itself"
ALL = -1
"""For `top_k`: every token."""


@dataclass(slots=True)
class Sampled:
    """What a server sampled for one request."""

    ids: list[int]
    reason: str
    logprobs: list[float] | None


@dataclass(slots=True)
class Endpoint:
    """A model that can be asked, and how many requests it is sent at once."""

    sdk: Any
    """The SDK's module."""
    client: Any
    """The SDK's `SamplingClient`."""
    admission: Admission
    seconds: float
    """For one request."""
    raw: bool = True
    """Whether the logprobs of completions are those at temperature 1, before top-p and top-k, however sampled."""

    async def sample(self, prompt: Sequence[int], params: SamplingParams, seed: int) -> Sampled:
        """One completion. Raises what the SDK raises, or TimeoutError."""
        asked = self.sdk.SamplingParams(
            max_tokens=params.max_tokens,
            seed=seed % SEEDS,
            stop=list(params.stop_ids),
            temperature=params.temperature,
            top_k=params.top_k or ALL,
            top_p=params.top_p,
        )
        async with self.admission.slot(self.admission.ticket()):
            given = self.sdk.ModelInput.from_ints(list(prompt))
            response = await got(self.client.sample(given, num_samples=1, sampling_params=asked), self.seconds)
        if len(response.sequences) != 1:
            raise AlignmentError(f"{len(response.sequences)} completions came back for one request")
        (sequence,) = response.sequences
        reason = getattr(sequence.stop_reason, "value", sequence.stop_reason)
        return Sampled([int(index) for index in sequence.tokens], str(reason), sequence.logprobs)

    async def score(self, what: str, prompt: Sequence[int], asked: Asked) -> ResponseLogprobs:
        """The logprobs of a response, however the server lines them up with its ids, which their number tells.

        Raises AlignmentError, or as `sample`.
        """
        answer = await self.prefill([*prompt, *asked.response_ids.tolist()], asked, last_n=False)
        try:
            leading = leading_nones(answer.prompt_logprobs, asked.count)
        except AlignmentError as error:
            raise AlignmentError(f"{what}: {error}") from error
        return read_response(what, answer, asked, leading)

    async def prefill(self, ids: Sequence[int], asked: Asked, *, last_n: bool) -> Any:  # noqa: ANN401 - the SDK's SampleResponse
        """What comes back for a prompt, unread. Raises as `sample`."""
        async with self.admission.slot(self.admission.ticket()):
            return await got(submit(self.sdk, self.client, ids, asked, last_n=last_n), self.seconds)


async def sample_completion(
    endpoint: Endpoint, request: SampleRequest, version: int, tokenizer: Tokenizer
) -> Rollout | Failure:
    """One completion by policy `version`, or a Failure where the server could not give this one.

    Raises:
        AlignmentError: if ids or logprobs are not those of one completion.
        RunFailedError: if the server refuses the key, or does not speak as the SDK does.
    """
    what, prompt = f"completion {request.key}", request.prompt_ids.tolist()
    try:
        sampled = await endpoint.sample(prompt, request.params, request.seed)
        if not sampled.ids:
            return Failure(request, "the server sampled no token at all", retryable=False)
        reason = FINISHED.get(sampled.reason)
        if reason is None:
            return Failure(request, f"the completion ended by {shortened(repr(sampled.reason), 200)}", retryable=True)
        logprobs = checked_logprobs(what, sampled.logprobs, len(sampled.ids))
        end = kept_length(sampled.ids, request.params, tokenizer)
        if end is None:
            _require_own_end(what, request, sampled.ids, reason)
        else:
            reason = "stop"
        ids = sampled.ids[:end]
        if not endpoint.raw and not request.params.is_untouched:
            logprobs = (await endpoint.score(what, prompt, Asked(len(prompt), token_ids(ids)))).logprobs
    except DistillkitError:
        raise
    except Exception as error:  # noqa: BLE001 - read there, and raised again if it is not of this request alone
        return failure_of(request, error, endpoint.seconds)
    return Rollout(request, version, token_ids(ids), logprobs[:end], reason, tokenizer.decode(ids))


def kept_length(ids: Sequence[int], params: SamplingParams, tokenizer: Tokenizer) -> int | None:
    """How many of `ids` there are up to the first stop id or the end of the first stop string; None: neither is there.

    A string is there from some token on, and then in every longer part of the completion.
    """
    ends = [at + 1 for at, index in enumerate(ids) if index in params.stop_ids][:1]

    def holds_stop(length: int) -> bool:
        text = tokenizer.decode(ids[:length])
        return any(stop in text for stop in params.stop)

    if params.stop and holds_stop(len(ids)):
        ends.append(bisect_left(range(len(ids)), True, key=holds_stop))
    return min(ends, default=None)


def _require_own_end(what: str, request: SampleRequest, ids: Sequence[int], reason: FinishReason) -> None:
    """Raise AlignmentError if the server ended a completion where the request does not."""
    if reason == "stop" and request.params.stop_ids:
        raise AlignmentError(
            f"{what}: the server says that it stopped, and its last token, id {ids[-1]}, is none of the run's ends "
            f"{[*request.params.stop_ids]}: it has ends of its own, or leaves out the token that ended it"
        )
    require_own_limit(len(ids), reason, request, what, OWN_LIMIT)


def checked_logprobs(what: str, values: Sequence[float] | None, count: int) -> FloatArray:
    """Logprobs of sampled tokens [count], each there and possible. Raises AlignmentError."""
    if values is None:
        raise AlignmentError(f"{what}: no logprobs came back")
    if len(values) != count:
        raise AlignmentError(f"{what}: {len(values)} logprobs came back for {count} tokens")
    found = np.array([np.nan if value is None else value for value in values], np.float64)
    bad = np.flatnonzero(~((found > MINUS_INFINITY) & (found <= LOGPROB_ROUNDING)))  # NaN is neither
    if len(bad):
        raise AlignmentError(f"{what}: the logprob of token {bad[0]} is {values[bad[0]]}")
    return logprob_array(found)


async def score_completion(endpoint: Endpoint, request: ScoreRequest) -> Score | Failure:
    """The logprobs of a given response, or a Failure where the server could not give them. Raises as above."""
    what = f"score of {request.key} by teacher {request.teacher!r}"
    asked = Asked(len(request.prompt_ids), request.token_ids, request.topk, request.at_ids)
    try:
        found = await endpoint.score(what, request.prompt_ids.tolist(), asked)
    except DistillkitError:
        raise
    except Exception as error:  # noqa: BLE001 - read there, and raised again if it is not of this request alone
        return failure_of(request, error, endpoint.seconds)
    return Score(request, found.logprobs, None, arrays=found.arrays)
