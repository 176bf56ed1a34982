"""What a Tinker server says of itself, asked by our own requests before any client of the SDK exists.

The SDK would wait six minutes for a closed port, and the servers of others take fields that they do nothing with:
SkyRL drops `grad_clip_norm` and `ttl_seconds` without a word, and accepts any model's name. What a server reads of a
request stands in its OpenAPI description, where it publishes one (SkyRL does).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from distillkit.errors import InputError, suggest
from distillkit.frozen import FrozenDict
from distillkit_builtin.remote.connection import explain, quieten, timeouts
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.response import read_response
from distillkit_builtin.remote.results import AttemptError, RefusedError

HEALTH = "/api/v1/healthz"
CAPABILITIES = "/api/v1/get_server_capabilities"
DESCRIPTION = "/openapi.json"
TRAINING_RUNS = "/api/v1/training_runs"
CHECK_SECONDS = 10.0
KEY_STARTS = ("tml-", "eyJ")


class _Model(BaseModel):
    model_name: str | None = None
    max_context_length: int | None = None
    trainable: bool | None = None
    sampleable: bool | None = None


class _Capabilities(BaseModel):
    supported_models: list[_Model]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What one server says of itself."""

    root: str
    lengths: Mapping[str, int | None] = field(default_factory=FrozenDict)
    """The models that it has, by name, and how many tokens each takes, where it says so."""
    untrainable: frozenset[str] = frozenset()
    """Those of them that it says it does not train."""
    unsampleable: frozenset[str] = frozenset()
    """Those of them that it says it does not sample from."""
    schemas: Mapping[str, frozenset[str]] | None = None
    """The fields that it reads of each kind of request, by the kind's name; None: it does not say."""
    paths: frozenset[str] = frozenset()
    """The endpoints of its description; empty: it does not say."""

    def ignores(self, kind: str, name: str) -> bool:
        """Whether it says what it reads of this kind of request (`AdamParams`), and `name` is not among it."""
        return self.schemas is not None and kind in self.schemas and name not in self.schemas[kind]

    def has_path(self, ending: str) -> bool | None:
        """Whether it has an endpoint that ends so; None where it does not say."""
        return any(path.endswith(ending) for path in self.paths) if self.paths else None

    def require_model(self, model: str, option: str, *, trained: bool = False) -> None:
        """Raise InputError unless it has this model: SkyRL accepts any name, and fails when it samples."""
        if model not in self.lengths:
            raise InputError(f"{option} {model!r} is not at {self.root}; {suggest(model, self.lengths)}")
        if trained and model in self.untrainable:
            raise InputError(f"{option} {model!r}: {self.root} says that it does not train this model")
        if model in self.unsampleable:
            raise InputError(f"{option} {model!r}: {self.root} says that it does not sample from this model")


def read_key(variable: str) -> Key:
    """The key in an environment variable. Raises InputError if it is not set, or is none that the SDK takes."""
    try:
        key = Key.read(variable)
    except InputError as error:
        raise InputError(
            f"{error}; for a server that checks no key, any that begins with tml- does: export {variable}=tml-local"
        ) from error
    if not key.reveal().startswith(KEY_STARTS):
        raise InputError(
            f"api_key_env: the Tinker SDK takes only keys that begin with tml-, and {variable} holds another; for a "
            f"server that checks no key, any such does: export {variable}=tml-local"
        )
    return key


def ask_server(root: str, key: Key, *, transport: httpx.BaseTransport | None = None) -> ServerFacts:
    """Ask whether it is up, which models it has and what it reads; blocking, with a limit.

    Raises:
        InputError: if it does not respond, or does not as a Tinker server does: where, why, and what to check.
    """
    with _client(key, transport) as client:
        _get(client, root, HEALTH, key)
        said = _get(client, root, CAPABILITIES, key)
        try:
            models = _Capabilities.model_validate(said).supported_models
        except ValidationError as error:
            raise InputError(
                f"{root}{CAPABILITIES}: lists no models as a Tinker server does; is base_url its address?"
            ) from error
        description = _description(client, root, key)
    return ServerFacts(
        root,
        FrozenDict({model.model_name: model.max_context_length for model in models if model.model_name}),
        frozenset(model.model_name for model in models if model.model_name and model.trainable is False),
        frozenset(model.model_name for model in models if model.model_name and model.sampleable is False),
        _schemas(description),
        frozenset(_mapping(description, "paths")),
    )


def base_model_of(root: str, key: Key, run_id: str) -> str | None:
    """The base model of a training run; None where the server does not say, as of a run of somebody else."""
    with _client(key, None) as client:
        try:
            said = read_response(client.get(f"{root}{TRAINING_RUNS}/{run_id}"), root, 0.0, key, lenient=True).value
        except (RefusedError, AttemptError, httpx.RequestError):
            return None
    found = said.get("base_model") if isinstance(said, Mapping) else None
    return found if isinstance(found, str) else None


def _client(key: Key, transport: httpx.BaseTransport | None) -> httpx.Client:
    quieten()
    headers = {"X-API-Key": key.reveal(), "Accept": "application/json"}
    return httpx.Client(headers=headers, http2=True, transport=transport, timeout=timeouts(CHECK_SECONDS))


def _get(client: httpx.Client, root: str, path: str, key: Key) -> JsonValue:
    url = f"{root}{path}"
    try:
        return read_response(client.get(url), root, 0.0, key, lenient=True).value
    except RefusedError as error:
        refused = error.status in (401, 403)
        hint = f"; is ${key.variable} a key of this server?" if refused else _wrong_place(error.status)
        raise InputError(f"{url}: HTTP {error.status}: {error.message}{hint}") from error
    except AttemptError as error:
        raise InputError(f"{url}: {error.what}") from error
    except httpx.TimeoutException as error:
        raise InputError(f"{url}: no answer within {CHECK_SECONDS:g} s; is the server up?") from error
    except httpx.RequestError as error:
        raise InputError(f"{url}: {key.redacted(explain(error))}{_unreached(error)}") from error


def _unreached(error: httpx.RequestError) -> str:
    said = str(error).lower()
    if "wrong_version_number" in said or "record layer failure" in said:
        return "; this is what https says to a server that speaks http: begin base_url with http://"
    return "; is the server up, and base_url its address?" if isinstance(error, httpx.ConnectError) else ""


def _wrong_place(status: int) -> str:
    return "; is base_url the address of a Tinker server, without /api/v1?" if status in (404, 405) else ""


def _description(client: httpx.Client, root: str, key: Key) -> Mapping[str, Any]:
    """The server's OpenAPI description; empty where there is none, which is no error."""
    try:
        said = read_response(client.get(f"{root}{DESCRIPTION}"), root, 0.0, key).value
    except (RefusedError, AttemptError, httpx.RequestError):
        return {}
    return said if isinstance(said, Mapping) else {}


def _schemas(description: Mapping[str, Any]) -> Mapping[str, frozenset[str]] | None:
    schemas = _mapping(_mapping(description, "components"), "schemas")
    found = {name: frozenset(_mapping(schema, "properties")) for name, schema in schemas.items()}
    return FrozenDict(found) if found else None


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}
