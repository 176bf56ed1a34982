"""Completions and scores by a sampling client of the SDK, with everything that came back checked.

Every sampling field stands in every request. `stop` is always a list: of ids alone, since servers take no mixture, and
an empty one ends at nothing, not even at the model's own end. Stop strings are looked for here, and a completion is cut
behind the token that completes one: what was sampled behind it depends on nothing that is kept.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distillkit.arrays import FloatArray, token_ids
from distillkit.errors import AlignmentError, DistillkitError
from distillkit.files.strict_json import shortened
from distillkit.records import Failure, FinishReason, Rollout, Score, ScoreRequest
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.remote.completion_length import require_own_limit
from distillkit_builtin.tinker.prompt_logprobs import checked_logprobs, response_logprobs
from distillkit_builtin.tinker.sdk import got, load_sdk
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

    client: Any
    """The SDK's `SamplingClient`."""
    slots: asyncio.Semaphore
    seconds: float
    """For one request."""
    raw: bool = True
    """Whether the logprobs of completions are those at temperature 1, before top-p and top-k, however sampled."""
    types: Any = field(default_factory=lambda: load_sdk().types)

    async def sample(self, prompt: Sequence[int], params: SamplingParams, seed: int) -> Sampled:
        """One completion. Raises what the SDK raises, or TimeoutError."""
        asked = self.types.SamplingParams(
            max_tokens=params.max_tokens,
            seed=seed % SEEDS,
            stop=list(params.stop_ids),
            temperature=params.temperature,
            top_k=params.top_k or ALL,
            top_p=params.top_p,
        )
        async with self.slots:
            pending = self.client.sample(self._input(prompt), num_samples=1, sampling_params=asked)
            response = await got(pending, self.seconds)
        if len(response.sequences) != 1:
            raise AlignmentError(f"{len(response.sequences)} completions came back for one request")
        (sequence,) = response.sequences
        reason = getattr(sequence.stop_reason, "value", sequence.stop_reason)
        return Sampled([int(index) for index in sequence.tokens], str(reason), sequence.logprobs)

    async def logprobs(self, ids: Sequence[int]) -> list[float | None]:
        """What the server says of each of `ids`; how long that is, servers differ in. Raises as `sample`."""
        async with self.slots:
            found: list[float | None] = await got(self.client.compute_logprobs(self._input(ids)), self.seconds)
        return found

    def _input(self, ids: Sequence[int]) -> Any:  # noqa: ANN401 - the SDK's ModelInput
        return self.types.ModelInput.from_ints(list(ids))


async def sample_completion(
    endpoint: Endpoint, request: SampleRequest, version: int, tokenizer: HFTokenizer
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
            logprobs = await _rescored(endpoint, what, prompt, ids)
    except DistillkitError:
        raise
    except Exception as error:  # noqa: BLE001 - read there, and raised again if it is not of this request alone
        return failure_of(request, error, endpoint.seconds)
    return Rollout(request, version, token_ids(ids), logprobs[:end], reason, tokenizer.decode(ids))


def kept_length(ids: Sequence[int], params: SamplingParams, tokenizer: HFTokenizer) -> int | None:
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


async def _rescored(endpoint: Endpoint, what: str, prompt: list[int], ids: list[int]) -> FloatArray:
    """The logprobs of a completion as the server scores it, where those it samples with are of another distribution."""
    values = await endpoint.logprobs([*prompt, *ids])
    return response_logprobs(what, values, len(prompt) + len(ids), len(ids))


async def score_completion(endpoint: Endpoint, request: ScoreRequest) -> Score | Failure:
    """The logprobs of a given response, or a Failure where the server could not give them. Raises as above."""
    prompt, response = request.prompt_ids.tolist(), request.token_ids.tolist()
    what = f"score of {request.key} by teacher {request.teacher!r}"
    try:
        values = await endpoint.logprobs([*prompt, *response])
    except Exception as error:  # noqa: BLE001 - read there, and raised again if it is not of this request alone
        return failure_of(request, error, endpoint.seconds)
    return Score(request, response_logprobs(what, values, len(prompt) + len(response), len(response)), None)
