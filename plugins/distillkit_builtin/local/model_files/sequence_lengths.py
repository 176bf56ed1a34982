"""Requests that are longer than what a model reads in one way: the rows of a run are held to that before it begins."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from distillkit.records import Failure, ScoreRequest
from distillkit.types import SampleRequest
from distillkit_builtin.local.model_files.model_config import length_limit

Request = TypeVar("Request", SampleRequest, ScoreRequest)


def without(requests: Sequence[Request], failures: Sequence[Failure]) -> Sequence[Request]:
    """The requests that did not fail, in their order."""
    failed = {id(failure.request) for failure in failures}
    return [request for request in requests if id(request) not in failed]


def too_long(source: str, requests: Sequence[SampleRequest] | Sequence[ScoreRequest]) -> Iterator[Failure]:
    """A failure for each request whose tokens, those to be sampled too, cross the length limit of the model `source`.

    An evaluator may bring prompts of its own; what crosses it would have logprobs that depend on its batch.
    """
    limit = length_limit(source)
    if limit is None:
        return
    for request in requests:
        more = len(request.token_ids) if isinstance(request, ScoreRequest) else request.params.max_tokens
        tokens = len(request.prompt_ids) + more
        if tokens > limit.tokens:
            yield Failure(
                request,
                f"{tokens} tokens of prompt and completion are more than the {limit.tokens} that {source} reads here: "
                f"beyond, {limit.why}",
            )
