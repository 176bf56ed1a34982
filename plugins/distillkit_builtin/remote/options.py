"""The options that every backend over HTTP has, and the replicas' addresses that they name."""

import re
from collections.abc import Mapping
from typing import ClassVar, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LONG = 20
"""Characters; a longer name of a variable that is not in `UPPER_CASE` is taken for a key."""


class Timeouts(BaseModel):
    """How long a request may take, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    request: float = Field(120.0, gt=0, description="Seconds for one attempt; for the connection, at most 10.")
    retry: float = Field(300.0, ge=0, description="Seconds over which one request is tried again, back-off included.")
    hedge_after: float | None = Field(
        None, gt=0, description="Seconds after which an unanswered request also goes to another replica; null: never."
    )


class Concurrency(BaseModel):
    """How many requests a service is sent at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial: int = Field(16, ge=1, description="Requests at once at the start; adapts itself.")
    max: int = Field(256, ge=1, description="Requests at once, at most.")


class RemoteOptions(BaseModel):
    """Where a service is, and how requests are sent to it. A mixin: `class HttpScorerOptions(RemoteOptions)`."""

    # What is refused here may be a key or a password, which pydantic's own message would repeat. What it refuses for
    # its type alone is repeated by whoever tells of it, so the two options that may hold one are validated before that.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str | tuple[str, ...] = Field(
        examples=["http://localhost:8000/v1"],
        description="The service, with or without /v1; a list: replicas of one model, among which requests are spread.",
    )
    api_key_env: str | None = Field(
        None, description="The name of the environment variable that holds the key; null: no key is sent."
    )
    verify_tls: bool | str = Field(
        True, description="Whether certificates are verified; a path: by this CA bundle instead of the usual ones."
    )
    timeouts: Timeouts = Field(Timeouts(), description="How long a request may take.")
    concurrency: Concurrency = Field(Concurrency(), description="How many requests are sent at once.")

    moved: ClassVar[Mapping[str, str]] = {
        "request_timeout": "timeouts.request",
        "retry_timeout": "timeouts.retry",
        "hedge_after": "timeouts.hedge_after",
        "initial_concurrency": "concurrency.initial",
        "max_concurrency": "concurrency.max",
    }

    @property
    def roots(self) -> tuple[str, ...]:
        """The replicas' addresses, without a trailing slash or /v1, in the config's order."""
        return tuple(_root(url) for url in _as_tuple(self.base_url))

    @field_validator("base_url", mode="before")
    @classmethod
    def _are_addresses(cls, value: object) -> object:
        urls = value if isinstance(value, list | tuple) else [value]
        roots = [_root(url) for url in urls if isinstance(url, str)]
        if len(roots) < len(urls):
            raise ValueError("wants an address or a list of addresses, each a text (what else it is, is not repeated)")
        if not roots:
            raise ValueError("wants at least one address")
        twice = next((root for root in roots if roots.count(root) > 1), None)
        if twice is not None:
            raise ValueError(f"names {twice} twice; each replica has its own address")
        return value

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _is_a_name(cls, value: object) -> object:
        if value is not None and not (isinstance(value, str) and names_a_variable(value)):
            raise ValueError(
                "wants the name of an environment variable, such as MY_API_KEY, and this looks like a key itself or is "
                "no name (it is not repeated here); export the key and name its variable"
            )
        return value

    @model_validator(mode="after")
    def _has_somewhere_to_hedge_to(self) -> Self:
        if self.timeouts.hedge_after is not None and len(self.roots) < 2:
            raise ValueError("timeouts.hedge_after needs a second replica to ask: list several addresses in base_url")
        return self


def _as_tuple(base_url: str | tuple[str, ...]) -> tuple[str, ...]:
    return (base_url,) if isinstance(base_url, str) else base_url


def _root(url: str) -> str:
    parts = split_address(url.strip())
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def split_address(url: str, instead: str = "use api_key_env") -> SplitResult:
    """The parts of an address. Raise ValueError for anything else, without repeating a password.

    An @ is refused wherever it stands: in `http://me:pass/word@host` and `me:password@host` it is no part of what
    parsers take for the host. In a path it can be written `%40`. `instead` is how keys are given.
    """
    if "@" in url:
        raise ValueError(f"holds a user name or password (an @), which configs and logs would show; {instead}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a lone bracket, or a port that is not a number
        usable = False
    if not usable:
        raise ValueError(f"{url!r} is no http or https address, such as http://localhost:8000/v1")
    if parts.query or parts.fragment:
        raise ValueError(f"{parts.scheme}://{parts.netloc}{parts.path}: takes nothing after ? or #")
    return parts


def names_a_variable(value: str) -> bool:
    """Whether a value of `api_key_env` is the name of an environment variable, and does not look like a key itself."""
    if VARIABLE.fullmatch(value) is None:
        return False
    return len(value) <= LONG or (value == value.upper() and "_" in value)
