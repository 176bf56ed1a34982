"""What a server says it serves (`/v1/models`), which costs nothing to ask."""

from collections.abc import Sequence

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from distillkit.errors import InputError, suggest


class ServedModel(BaseModel):
    """One entry; `max_model_len` is the longest prompt plus completion in tokens, where the server says it."""

    id: str
    max_model_len: int | None = None
    root: str | None = None
    """Directory or hub name at the server."""
    parent: str | None = None
    """Of an adapter: its base model."""


class _Answer(BaseModel):
    data: list[ServedModel]


_ANSWER = TypeAdapter(_Answer)


def served_models(answer: JsonValue, url: str) -> Sequence[ServedModel]:
    """The entries of `/v1/models`. Raises InputError if it is no such answer."""
    try:
        return _ANSWER.validate_python(answer).data
    except ValidationError as error:
        raise InputError(f"{url} gives no list of models; is base_url that of an OpenAI-compatible server?") from error


def find_model(models: Sequence[ServedModel], name: str, url: str) -> ServedModel:
    """The entry called `name`. Raises InputError naming what is served."""
    for model in models:
        if model.id == name:
            return model
    known = [model.id for model in models]
    raise InputError(f"{url} serves no model {name!r}; {suggest(name, known)}")
