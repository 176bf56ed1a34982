"""Takes keys and passwords out of what is logged and shown: the last line of defence, where text leaves the engine.

The first is that plugins read keys from the environment and never say them. But a service repeats the key that it
refuses, a library puts an address with its password into an exception, and a plugin of somebody else's does either. So
a text that goes to `run.log`, to a sink, to the terminal as an error, or to a file as the reason of a failure passes
through `redact`. Prompts, completions and settings do not: they are data, and stand in the files as they are.
"""

import logging
import os
import re
from collections.abc import Iterator
from urllib.parse import quote

HIDDEN = "***"
SHORTEST = 8
"""Characters; a shorter value is no key, and may well be a word of the sentence around it."""
OF_A_SECRET = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASS(?:WORD|WD)?|CREDENTIALS?)$", re.IGNORECASE)
"""Environment variables with such names hold a secret: HF_TOKEN, FIREWORKS_API_KEY, AWS_SECRET_ACCESS_KEY."""
IN_A_URL = re.compile(r"(?<=://)[^\s/?#'\"<>]*@")
IN_A_HEADER = re.compile(r"\b(Basic|Bearer) [\w+/=.~-]{8,}")
"""In base64 a proxy's password is not recognized by its value."""

_named: set[str] = set()


def keep_secret(variable: str) -> None:
    """Say that an environment variable holds a secret, whatever its name: for the option `api_key_env` and its like.

    For the whole process, as the environment is; only the name is kept.
    """
    _named.add(variable)


def redact(text: str) -> str:
    """`text` without the secrets that the environment holds now, and without user names and passwords in addresses."""
    for value in sorted(_values(), key=len, reverse=True):  # one may hold another
        text = text.replace(value, HIDDEN)
    return IN_A_HEADER.sub(rf"\1 {HIDDEN}", IN_A_URL.sub(f"{HIDDEN}@", text))


def _values() -> Iterator[str]:
    for name, value in os.environ.items():
        value = value.strip()
        if len(value) >= SHORTEST and (name in _named or OF_A_SECRET.search(name)):
            yield value
            yield quote(value, safe="")


class RedactingFormatter(logging.Formatter):
    """Formats records as its base class does, and redacts them, tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, as it may be written."""
        return redact(super().format(record))
