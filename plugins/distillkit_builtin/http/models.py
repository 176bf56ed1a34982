"""What a server says it serves (`/v1/models`), which is free, and the dialects that it may speak."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from distillkit.errors import InputError, suggest
from distillkit.files.strict_json import shortened

DialectName = Literal["auto", "prompt_logprobs", "vllm_tokens", "echo", "sglang"]
SGLANG_KEPT = 7
"""Tokens of its context that SGLang 0.5.23 keeps free behind a prompt (`max_req_input_len`); others: one."""
SHOWN = 20
"""Served models that an error names."""


class ServedModel(BaseModel):
    """One entry; `max_model_len` is the longest prompt plus completion in tokens, where the server says it."""

    id: str
    max_model_len: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    root: str | None = None
    """Directory or hub name at the server."""
    parent: str | None = None
    """The base model of an adapter; None for a base model."""
    owned_by: str | None = Field(None, exclude=True)
    """The kind of server, such as `vllm` or `sglang`."""
    other_names: frozenset[str] = Field(frozenset(), exclude=True)
    """Of a base model: the names that the server lists with the same root."""

    def provenance(self, roots: Sequence[str], version: str | None) -> dict[str, JsonValue]:
        """What `summary.json` says of it; `version` is the server's own, where it is known."""
        known: dict[str, JsonValue] = {"model": self.id, "servers": [*roots], "served_from": self.root}
        known |= {"max_model_len": self.max_model_len, "server_version": version}
        return {name: value for name, value in known.items() if value is not None}

    @property
    def identity(self) -> Mapping[str, JsonValue]:
        """What distinguishes it from another model. `created` does not: vLLM gives the time of the request."""
        return self.model_dump(mode="json")


class _Response(BaseModel):
    data: list[ServedModel]


_RESPONSE = TypeAdapter(_Response)


def served_models(body: JsonValue, url: str) -> Sequence[ServedModel]:
    """The entries of a response of `/v1/models`. Raises InputError if it has another shape."""
    try:
        return _RESPONSE.validate_python(body).data
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = shortened(".".join(map(str, first["loc"])) or "the response", 200)
        raise InputError(
            f"{url} gives no list of models; is base_url that of an OpenAI-compatible server? ({where}: {first['msg']})"
        ) from error


def find_model(models: Sequence[ServedModel], name: str, url: str) -> ServedModel:
    """The entry called `name`. Raises InputError naming what is served."""
    for model in models:
        if model.id == name:
            return model.model_copy(update={"other_names": _other_names(models, model)})
    known = [shortened(model.id, 200) for model in models]
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    raise InputError(f"{url} serves no model {name!r}; {suggest(name, known[:SHOWN])}{more}")


def _other_names(models: Sequence[ServedModel], served: ServedModel) -> frozenset[str]:
    """An adapter has one name."""
    if served.root is None or served.parent is not None:
        return frozenset()
    return frozenset(each.id for each in models if each.root == served.root and each.parent is None) - {served.id}
