"""What the SDK raises for one request for completions: a Failure of that request, or the end of the run."""

from collections.abc import Iterator

from distillkit.errors import AlignmentError, RunFailedError
from distillkit.records import Failure, ScoreRequest
from distillkit.types import SampleRequest
from distillkit_builtin.fireworks.sdk_errors import explain, status_of

TRANSIENT = (404, 408, 425, 429, 500, 502, 503, 504)
REFUSED = (401, 403)
UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What the SDK's parser raises where a response is not what it expects: it checks little."""
STREAMS = {
    "sse_truncation": "the stream ended without a finish reason",
    "upstream_stream": "the stream said that the completion failed",
}
"""In words, by the SDK's name of what went wrong."""
SAID = ("upstream_error_code", "upstream_error_type", "upstream_finish_reason", "upstream_response_id")
"""What the service said inside of a stream: attributes of the SDK's error that its message leaves out."""


def failure_of(request: SampleRequest | ScoreRequest, error: Exception) -> Failure:
    """The Failure of one request; raises what concerns all of them.

    Raises:
        AlignmentError: if what came back is whole, and not what was asked for.
        RunFailedError: if the service refuses the key.
    """
    import httpx
    from fireworks.training.sdk import SamplingRequestError

    if isinstance(error, SamplingRequestError):
        _require_not_refused(error.final_status, error)
        passing = error.final_status is None or error.final_status in TRANSIENT
        return Failure(request, explain(error, ", ".join(_details(error))), retryable=passing)
    if isinstance(error, httpx.HTTPStatusError):
        status = status_of(error)
        _require_not_refused(status, error)
        return Failure(request, explain(error), retryable=status in TRANSIENT)
    if isinstance(error, httpx.HTTPError):
        return Failure(request, explain(error), retryable=True)
    if _is_broken_stream(error):
        return Failure(request, f"the stream broke off, or is garbled: {explain(error)}", retryable=True)
    if isinstance(error, RuntimeError) and ("Echo response" in str(error) or "token IDs" in str(error)):
        raise AlignmentError(f"{request.key}: {explain(error)}") from error
    if isinstance(error, UNREADABLE):
        said = f"{type(error).__name__}: {explain(error)}"
        raise AlignmentError(f"{request.key}: the SDK cannot read what came back ({said})") from error
    raise error


def _require_not_refused(status: int | None, error: Exception) -> None:
    """A key that is refused is so for every request. A stream may say it too, with HTTP 200."""
    if status in REFUSED:
        raise RunFailedError(f"the service refuses requests: {explain(error, ', '.join(_details(error)))}") from error


def _details(error: Exception) -> Iterator[str]:
    """What the SDK's error knows and its message does not say."""
    attempts = getattr(error, "attempts", None)
    if attempts is not None:
        yield f"{attempts} attempt{'s' if attempts != 1 else ''}"
    kind = getattr(error, "final_error_kind", None)
    if kind in STREAMS:
        yield f"{STREAMS[kind]} (HTTP {getattr(error, 'wire_status', None)})"
    yield from (f"{name}={value}" for name in SAID if (value := getattr(error, name, None)) is not None)


def _is_broken_stream(error: Exception) -> bool:
    """Whether the events of this one response cannot be read.

    The SDK retries a stream that lacks its end, but not one that was cut inside a character or has a frame that is
    no JSON.
    """
    return isinstance(error, UnicodeDecodeError) or getattr(error, "origin", None) == "sdk_parser"
