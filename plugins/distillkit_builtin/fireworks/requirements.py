"""What must be there before the first request to Fireworks: packages, a key, an address."""

import os
from collections.abc import Sequence
from importlib.util import find_spec

from distillkit.errors import InputError
from distillkit_builtin.fireworks.control_plane import api_key
from distillkit_builtin.fireworks.sdk_errors import KEY
from distillkit_builtin.remote.options import split_address

BASE_URL = "FIREWORKS_BASE_URL"
DEFAULT_BASE_URL = "https://api.fireworks.ai"


LIBRARIES = frozenset({"fireworks-ai", "transformers"})


def missing_extra(who: str) -> str | None:
    """One line that says what to install, or None."""
    try:
        found = find_spec("fireworks.training.sdk")
    except ModuleNotFoundError:
        found = None
    return None if found is not None else f"{who} needs fireworks-ai[training-sdk]: pip install 'distillkit[fireworks]'"


def resolve_base_url(option: str | None) -> str:
    """The option, else FIREWORKS_BASE_URL, else the public service; without the paths that the SDK knows itself."""
    url = (option or os.environ.get(BASE_URL, "").strip() or DEFAULT_BASE_URL).rstrip("/")
    return url.partition("/training/v1")[0]


def access_problems(base_url: str) -> list[str]:
    """What is wrong with the key or the address."""
    problems: list[str | None] = []
    if not api_key():
        problems.append(f"{KEY} is not set; export the key of your Fireworks account")
    elif api_key().startswith("tml-"):
        problems.append(f"{KEY} holds a Tinker key (tml-...), which the Fireworks SDK takes for none")
    elif not all("!" <= character <= "~" for character in api_key()):
        problems.append(f"{KEY} holds white space or a character that no key has")
    problems.append(address_problem("base_url", base_url))
    return [problem for problem in problems if problem]


def address_problem(option: str, url: str) -> str | None:
    """What is wrong with an address, without the password that may stand in it."""
    try:
        split_address(url, instead=f"the key is read from {KEY}")
    except ValueError as error:
        return f"{option} {error}"
    return None


def require(who: str, problems: Sequence[str | None], missing: str | None) -> None:
    """Raise InputError with all the problems there are, first with what is not installed, as `missing_extra` says."""
    found = [f"{who}: {problem}" for problem in problems if problem]
    if found:
        raise InputError("\n".join([missing, *found] if missing else found))
