"""What the SDK raises, as a user reads it: one paragraph, without advice for agents, without the key."""

import os
import re

from distillkit.errors import RunFailedError

KEY = "FIREWORKS_API_KEY"
LONGEST = 1000
"""Characters of an exception that are shown."""


def explain(error: BaseException, details: str = "") -> str:
    """An SDK's or HTTP library's exception in one line, with `details` behind it in brackets.

    The key, should it stand in there, does not come out.
    """
    response = getattr(error, "response", None)
    status, body = getattr(response, "status_code", None), _body_of(response)
    text = f"HTTP {status} {body}" if status is not None and body else _without_key(str(error))
    text = re.sub(r"\s*Agent debug:.*", "", text, flags=re.DOTALL)
    silence = "no response in time" if isinstance(error, TimeoutError) else type(error).__name__
    behind = f" ({_one_line(_without_key(details))[: LONGEST // 2]})" if details else ""
    return (_one_line(text) or silence)[: LONGEST - len(behind)] + behind


def run_failed(doing: str, error: BaseException) -> RunFailedError:
    """The end of a run, saying what was done when it came."""
    return RunFailedError(f"{doing}: {explain(error)}")


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception came from, where there is one."""
    for found in (error, getattr(error, "response", None), error.__cause__):
        for name in ("status_code", "final_status"):
            status = getattr(found, name, None)
            if isinstance(status, int):
                return status
    stated = re.search(r"\(HTTP (\d{3})\)", str(error))
    return int(stated[1]) if stated else None


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _without_key(text: str) -> str:
    """`text` without the key, to be had before anything is cut off: a part of a key is still a secret."""
    key = os.environ.get(KEY, "").strip()
    return text.replace(key, "***") if key else text


def _body_of(response: object) -> str:
    text = getattr(response, "text", "")
    text = _without_key(text) if isinstance(text, str) else ""
    message = re.search(r'"message"\s*:\s*"((?:[^"\\]|\\.)*)"', text)
    return message[1] if message else text[:300]
