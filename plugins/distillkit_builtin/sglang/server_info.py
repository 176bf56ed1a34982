"""What an SGLang server says of how it was started, which pushed weights do not change."""

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from distillkit.errors import InputError
from distillkit_builtin.http.models import ServedModel, find_model, served_models

PATH = "/server_info"
KEPT = 2
"""Tokens of its context by which SGLang 0.5.23 cuts completions without a word (`max_req_len`, and one behind it)."""
KEPT_OF_PROMPTS = 6
"""The same of `max_req_input_len`, which is no prompt's length any more."""


class ServerInfo(BaseModel):
    """The fields of `/server_info` that matter here."""

    served_model_name: str
    version: str | None = None
    enable_deterministic_inference: bool = False
    watermark_default_enabled: bool = False
    watermark_enforce_all: bool = False
    max_req_input_len: int | None = None
    """Less than the context where its memory holds fewer tokens."""

    @property
    def watermarks(self) -> bool:
        """Whether completions are watermarked that did not ask for it."""
        return self.watermark_default_enabled or self.watermark_enforce_all

    def most_tokens(self, context_length: int | None) -> int | None:
        """Of prompt and completion, of which nothing is cut; None: not known."""
        kept = None if self.max_req_input_len is None else self.max_req_input_len + KEPT_OF_PROMPTS
        known = [length for length in (context_length, kept) if length is not None]
        return min(known) - KEPT if known else None


_INFO = TypeAdapter(ServerInfo)


def server_info(body: JsonValue, root: str) -> ServerInfo:
    """The response of `/server_info`. Raises InputError if it has another shape."""
    try:
        return _INFO.validate_python(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the response"
        raise InputError(
            f"{root}{PATH} does not say how the server was started; is base_url that of an SGLang server, 0.5.23 or "
            f"newer? ({where}: {first['msg']})"
        ) from error


def base_model(info: ServerInfo, models: JsonValue, root: str, wanted: str | None) -> ServedModel:
    """The base model, by the name that the server was started with; `models` is the response of `/v1/models`.

    A server whose weights were replaced calls its model by the path of the new ones there.

    Raises:
        InputError: if `wanted` is another one.
    """
    bases = [model for model in served_models(models, root) if model.parent is None]
    if not bases:
        raise InputError(f"{root} serves no base model")
    served = bases[0].model_copy(update={"id": info.served_model_name})
    return served if wanted is None else find_model([served], wanted, root)
