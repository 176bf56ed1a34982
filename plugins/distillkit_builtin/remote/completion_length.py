"""Whether a completion is as long as was asked for, or something else than the request ended it."""

from distillkit.errors import AlignmentError
from distillkit.records import FinishReason
from distillkit.types import SampleRequest


def require_own_limit(tokens: int, reason: FinishReason, request: SampleRequest, what: str, fix: str) -> None:
    """Raise AlignmentError, that begins with `what`, where another limit than the request's `max_tokens` ended it.

    A completion that is cut at another place than the config says would be trained as one that was cut there. `fix`
    says which limits there are.
    """
    most = request.params.max_tokens
    if tokens > most or (reason == "length" and tokens < most):
        raise AlignmentError(f"{what}: {tokens} tokens were sampled before a limit, and max_tokens is {most}; {fix}")
