"""Requests to a served model, and their results as rollouts and scores: what `http` and `vllm` do in the same way."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from pydantic import JsonValue

from distillkit.arrays import Array
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.types import SampleRequest
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery, TokenLogprobs, parse_scores
from distillkit_builtin.http.dialects.sglang import SGLang, hidden_id
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.remote.results import Result

Send = Callable[[SampleRequest | ScoreRequest, str, Mapping[str, JsonValue]], Awaitable[Result | Failure]]
"""`(request, path, payload) -> result`, or the request's Failure."""


async def sample_completion(
    send: Send, form: CompletionForm, request: SampleRequest, model: str, version: int, cache_salt: str | None = None
) -> Rollout | Failure:
    """A completion by `model`, as that of policy `version`. Raises AlignmentError unless ids and logprobs are there.

    Of a prompt's prefixes the server uses only what it computed under the same `cache_salt`.
    """
    outcome = await send(request, form.path, form.payload(request, model, cache_salt))
    return outcome if isinstance(outcome, Failure) else form.parse(outcome.value, request, model, version)


async def score_tokens(
    send: Send, request: ScoreRequest, dialect: Dialect, query: ScoreQuery, who: str
) -> TokenLogprobs | Failure:
    """The logprobs of the query's response. Raises AlignmentError naming `who`, whose server gave something else.

    An id that SGLang does not name is asked for once more, by itself.
    """
    scored = await _scored(send, request, dialect, query, who)
    hidden = hidden_id(scored, query) if isinstance(dialect, SGLang) and isinstance(scored, TokenLogprobs) else None
    if hidden is None:
        return scored
    return await _scored(send, request, dialect, replace(query, named=hidden), who)


async def _scored(
    send: Send, request: ScoreRequest, dialect: Dialect, query: ScoreQuery, who: str
) -> TokenLogprobs | Failure:
    outcome = await send(request, dialect.path, dialect.payload(query))
    if isinstance(outcome, Failure):
        return outcome
    return parse_scores(dialect, outcome.value, query, f"score of {request.key} by {who} at {outcome.root}")


def as_score(request: ScoreRequest, scored: TokenLogprobs) -> Score:
    """The logprobs as the engine's Score. Raises AlignmentError if ids or logprobs are not those of the response."""
    arrays: dict[str, Array] = {}
    if scored.topk_ids is not None and scored.topk_logprobs is not None:
        arrays |= {"topk_ids": scored.topk_ids, "topk_logprobs": scored.topk_logprobs}
    if scored.at_logprobs is not None:
        arrays["at_logprobs"] = scored.at_logprobs
    return Score(request, scored.logprobs, scored.ids, arrays=arrays)
