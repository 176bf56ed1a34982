"""What the SDK raises, as a user reads it: one line, without the request that a refusal repeats, without a key."""

import re
from collections.abc import Mapping
from typing import Any

from distillkit.errors import InputError, RunFailedError
from distillkit.files.redaction import redact
from distillkit.files.strict_json import shortened
from distillkit.records import Failure, ScoreRequest
from distillkit.types import SampleRequest

LONGEST = 600
"""Characters of an exception that are shown."""
REFUSED = (401, 403)
BILLING = 402
IDS = re.compile(r"\[\s*(?:[-+0-9.eE]+\s*,\s*){8,}[^\]]*\]")
"""A list of numbers: token ids or logprobs, of a request that is repeated."""
UNREADABLE = (TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""What the SDK raises where a response is not what it expects."""


def explain(error: BaseException) -> str:
    """An exception of the SDK in one line: the server's own words where it has a body, else the exception's."""
    status = status_of(error)
    said = _of_body(getattr(error, "body", None)) or str(error)
    text = shortened(IDS.sub("[...]", re.sub(r"\s+", " ", redact(said)).strip()), LONGEST)
    silence = "no response in time" if isinstance(error, TimeoutError) else type(error).__name__
    words = text or silence
    return words if status is None or words.startswith(("HTTP", "Error code")) else f"HTTP {status}: {words}"


def run_failed(doing: str, error: BaseException) -> RunFailedError:
    """The end of a run, saying what was done when it came, and what may be done about it."""
    return RunFailedError(f"{doing}: {explain(error)}{_advice(error)}")


def refused_input(doing: str, error: BaseException) -> InputError:
    """The same for what is found before anything is trained."""
    return InputError(f"{doing}: {explain(error)}{_advice(error)}")


def failure_of(request: SampleRequest | ScoreRequest, error: Exception, seconds: float) -> Failure:
    """The Failure of one request that raised `error` or had `seconds` for it; raises what concerns all of them.

    Raises:
        RunFailedError: if the server refuses the key, or does not speak as this SDK does.
    """
    if isinstance(error, TimeoutError):
        return Failure(request, f"no response within {seconds:g} s (timeouts.request)", retryable=True)
    status = status_of(error)
    if status in (*REFUSED, BILLING):
        raise run_failed("the server refuses requests", error) from error
    if isinstance(error, UNREADABLE):
        raise run_failed("reading the server's response", error) from error
    return Failure(request, explain(error), retryable=_may_pass(error, status))


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception came from, where there is one; SkyRL's failed futures are a ValueError."""
    for found in (error, error.__cause__):
        status = getattr(found, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def lacks_request(error: BaseException | None) -> bool:
    """Whether a server refused a request for not knowing it, or not all that it needs: another way may do."""
    return error is not None and status_of(error) in (400, 404, 405, 422)


def _may_pass(error: BaseException, status: int | None) -> bool:
    """Whether the same request might succeed later."""
    category = getattr(getattr(error, "category", None), "value", None)
    if category is not None:
        return bool(category != "user")
    return status is None or status >= 500 or status in (408, 409, 425, 429)


def _advice(error: BaseException) -> str:
    status = status_of(error)
    if status in REFUSED:
        return "; is the variable that api_key_env names the key of this server?"
    if status == BILLING:
        return "; the account's billing is not set up, or its credit is used up"
    if isinstance(error, UNREADABLE):
        return "; this SDK and this server may not go together (servers of others ask for tinker 0.25)"
    return ""


def _of_body(body: object) -> str:
    """The server's own words: `detail`, `message` or `error` of a body, without the input that it repeats."""
    if not isinstance(body, Mapping):
        return ""
    for name in ("detail", "message", "error"):
        said: Any = body.get(name)
        if isinstance(said, str) and said:
            return said
        if isinstance(said, list):  # a refusal by pydantic: what is wrong, and where, and the input itself
            return "; ".join(_of_problem(problem) for problem in said[:5])
        if isinstance(said, Mapping):
            return _of_body(said)
    return ""


def _of_problem(problem: object) -> str:
    if not isinstance(problem, Mapping):
        return shortened(str(problem), 100)
    where = ".".join(str(part) for part in problem.get("loc", ()))
    return f"{where} {problem.get('msg', '')}".strip()
