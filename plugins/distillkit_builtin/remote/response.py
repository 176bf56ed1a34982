"""What a response means: a `Result`, or the exception that says why not. Status codes are interpreted here alone."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import JsonValue
from pydantic_core import from_json

from distillkit.files.redaction import redact
from distillkit.files.strict_json import shortened
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.results import AttemptError, GarbledError, RefusedError, Result

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 530)})
"""520 to 529 are Cloudflare's, for an origin that did not respond, and `overloaded`. 501 and 505 do not go away."""
OVERLOAD = frozenset({429, 503, 504, 529})
SERVER_ERROR = 500
"""Of a control call it is final: vLLM gives it for an adapter that it cannot take, however often that is sent."""
MESSAGE_LENGTH = 500
READ_LENGTH = 16 * MESSAGE_LENGTH
"""Characters of a server's message that are read: enough for the message, however much white space there is."""


def read_response(response: httpx.Response, root: str, seconds: float, key: Key, *, lenient: bool = False) -> Result:
    """The result that a response holds.

    Args:
        response: with its body read.
        root: the replica it came from.
        seconds: how long it took, in seconds.
        key: is taken out of every message.
        lenient: for control calls, to which some servers give plain text or nothing.

    Raises:
        RefusedError: the same request would be refused again.
        AttemptError: another attempt may succeed (GarbledError: the body is not JSON).
    """
    status = response.status_code
    if response.is_success:
        return Result(root, _body(response, root, lenient=lenient), seconds)
    message = server_message(response, key)
    if status not in RETRIED or (lenient and status == SERVER_ERROR):
        raise RefusedError(root, status, message)
    raise AttemptError(
        root,
        f"HTTP {status}: {message}",
        overload=status in OVERLOAD,
        broken=status >= 500,
        retry_after=retry_after(response.headers),
    )


def _body(response: httpx.Response, root: str, *, lenient: bool) -> JsonValue:
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if lenient and not response.content.strip():
        return None
    try:
        value: JsonValue = from_json(response.content, allow_inf_nan=True)
    except ValueError as error:
        if lenient and "json" not in media and "html" not in media:  # vLLM: "Success: LoRA adapter ... added"
            return _text(response)
        body = f"{shortened(_line(media), 100) or 'a body'} of {len(response.content)} bytes"
        what = f"HTTP {response.status_code} with {body} that is no JSON"
        raise GarbledError(root, f"{what} ({error})") from error
    return value


def server_message(response: httpx.Response, key: Key) -> str:
    """The server's own words in one line: `error.message`, `message`, `detail`, or the body as it is.

    The key is taken out before the line is cut, since a part of it is a secret still; so are a proxy's credentials.
    """
    if response.has_redirect_location:
        there = _line(_redacted(response.headers["location"], key))
        return f"redirects to {shortened(there, MESSAGE_LENGTH)}; base_url wants the address that this leads to"
    try:
        text = _message_of(from_json(response.content))
    except ValueError:
        text = _text(response)
    return shortened(_line(_redacted(text, key)) or _line(_redacted(response.reason_phrase, key)), MESSAGE_LENGTH)


def _redacted(text: str, key: Key) -> str:
    return redact(key.redacted(text))


def _text(response: httpx.Response) -> str:
    """As UTF-8, whatever charset the server names: Python knows some that are no text, or fail."""
    return response.content.decode("utf-8", errors="replace")


def _line(text: str) -> str:
    """One line without control characters, which a terminal would obey."""
    printable = "".join(character if character.isprintable() else " " for character in text[:READ_LENGTH])
    return re.sub(" +", " ", printable).strip()


def _message_of(body: JsonValue) -> str:
    """FastAPI's `detail` may be a list of `{loc, msg}`; `error` is an object with OpenAI, text with others."""
    if isinstance(body, Mapping):
        found = next((body[name] for name in ("error", "message", "detail", "msg") if body.get(name)), None)
        where = body.get("loc")
        if found is None:
            return str(body)
        return f"{'.'.join(map(str, where))}: {_message_of(found)}" if isinstance(where, list) else _message_of(found)
    if isinstance(body, list):
        return "; ".join(map(_message_of, body))
    return str(body)


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds that the server asks us to wait: given as such, or as a date on the server's own clock."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    then, now = _date(value), _date(headers.get("date", "")) or datetime.now(UTC)
    return None if then is None else max(0.0, (then - now).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):  # the standard library's parser stumbles over some
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
