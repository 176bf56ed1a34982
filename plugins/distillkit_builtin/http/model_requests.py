"""Requests as payloads, and answers as outcomes: what scorer `http` and sampler `vllm` do in the same way."""

from collections.abc import Awaitable, Callable, Mapping

from pydantic import JsonValue

from distillkit.arrays import Array
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.types import SampleRequest
from distillkit_builtin.http.completions import PATH, completion_payload, read_completion
from distillkit_builtin.http.dialects.dialect import Dialect, Question, Reading, read_scores
from distillkit_builtin.remote.results import Answer

Ask = Callable[[SampleRequest | ScoreRequest, str, Mapping[str, JsonValue]], Awaitable[Answer | Failure]]
"""`(request, path, payload) -> answer`, or what becomes of the request without one."""


async def drawn(ask: Ask, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
    """A completion by `model`, as that of policy `version`. Raises AlignmentError unless ids and logprobs are there."""
    outcome = await ask(request, PATH, completion_payload(request, model))
    return outcome if isinstance(outcome, Failure) else read_completion(outcome.value, request, model, version)


async def read(ask: Ask, request: ScoreRequest, dialect: Dialect, question: Question, who: str) -> Reading | Failure:
    """What a server says of the response's tokens. Raises AlignmentError, which names `who` was to score them."""
    outcome = await ask(request, dialect.path, dialect.payload(question))
    if isinstance(outcome, Failure):
        return outcome
    return read_scores(dialect, outcome.value, question, f"score of {request.key} by {who} at {outcome.root}")


def as_score(request: ScoreRequest, reading: Reading) -> Score:
    """The engine's value. Raises AlignmentError if ids or logprobs are not those of the response."""
    arrays: dict[str, Array] = {}
    if reading.topk_ids is not None and reading.topk_logprobs is not None:
        arrays = {"topk_ids": reading.topk_ids, "topk_logprobs": reading.topk_logprobs}
    return Score(request, reading.logprobs, reading.ids, arrays=arrays)
