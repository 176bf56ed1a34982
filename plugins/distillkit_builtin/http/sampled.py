"""A completion as a server says it, in whatever form, and the Rollout that comes of it once everything is checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import Array, logprob_array, token_ids
from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened
from distillkit.records import Failure, FinishReason, Rollout
from distillkit.types import SampleRequest
from distillkit_builtin.http.dialects.dialect import require_length, require_possible
from distillkit_builtin.http.how_to_start import VLLM, HowToStart
from distillkit_builtin.remote.candidates import TopK
from distillkit_builtin.remote.completion_length import require_own_limit

FINISHED: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class CompletionForm(Protocol):
    """One way to ask a server for a completion."""

    path: ClassVar[str]
    """The endpoint's path."""
    start: ClassVar[HowToStart]
    """What its server needs, for messages."""

    def payload(self, request: SampleRequest, model: str, cache_salt: str | None = None) -> dict[str, JsonValue]:
        """The request's JSON body. Of a prompt's prefixes the server uses only what has the same `cache_salt`."""
        ...

    def parse(self, body: JsonValue, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
        """The completion, as sampled by policy `version`. Raises AlignmentError unless ids and logprobs are there."""
        ...


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """What a server says of one completion, in whatever form; nothing of it is checked."""

    model: str | None
    """The model that answered."""
    ids: Sequence[int]
    logprobs: Sequence[float | None]
    finish_reason: str | None
    text: str
    prompt_ids: Sequence[int] | None = None
    """The prompt that it was given, where it says so."""
    start: HowToStart = VLLM
    """What the server needs, for messages."""
    topk: TopK | None = None
    """The most probable tokens of each position, where the request wants any."""


def rollout_of(said: SampledTokens, request: SampleRequest, model: str, version: int, what: str) -> Rollout | Failure:
    """The completion `what`, as sampled by policy `version`. Raises AlignmentError for another one than was asked for.

    Or one whose logprobs are too few, null, not finite or of no probability.
    """
    if said.model != model:
        raise AlignmentError(f"{what}: the response is of model {shortened(repr(said.model), 200)}, not of {model!r}")
    if said.prompt_ids is not None and list(said.prompt_ids) != request.prompt_ids.tolist():
        raise AlignmentError(f"{what}: the server was given other prompt tokens than were sent")
    if not said.ids:
        return Failure(request, "the server sampled no token at all")
    reason = FINISHED.get(said.finish_reason or "")
    if reason is None:
        ended = shortened(repr(said.finish_reason), 200)
        return Failure(request, f"the completion ended by {ended}", retryable=True)
    require_own_limit(len(said.ids), reason, request, what, said.start.limits)
    require_length(said.logprobs, len(said.ids), "logprobs")
    if None in said.logprobs:
        raise AlignmentError(f"{what}: the logprob of token {said.logprobs.index(None)} is null")
    values = np.array(said.logprobs, np.float64)
    try:
        require_possible(values)
    except AlignmentError as error:
        raise AlignmentError(f"{what}: {error}") from error
    best = said.topk
    arrays: dict[str, Array] = {} if best is None else {"topk_ids": best.ids, "topk_logprobs": best.logprobs}
    return Rollout(request, version, token_ids(said.ids), logprob_array(values), reason, said.text, arrays=arrays)
