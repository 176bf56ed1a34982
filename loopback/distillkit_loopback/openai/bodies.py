"""What clients send. Fields that the loopback server does not know are let through, as the real servers do."""

from pydantic import AliasPath, Field, JsonValue

from distillkit.types import SamplingParams
from distillkit_loopback.transport.messages import Body

Prompt = str | tuple[int, ...]
Stop = str | tuple[str, ...] | None
StopIds = tuple[int, ...] | None


class CompletionBody(Body):
    """`POST /v1/completions`."""

    model: str | None = None
    prompt: Prompt
    max_tokens: int = Field(16, ge=0)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    seed: int | None = None
    stop: Stop = None
    stop_token_ids: StopIds = None
    n: int = 1
    logprobs: int | None = Field(None, ge=0)
    prompt_logprobs: int | None = Field(None, ge=0)
    echo: bool = False
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False


class TokenizeBody(Body):
    """`POST /tokenize`."""

    model: str | None = None
    prompt: str


class LoadBody(Body):
    """`POST /v1/load_lora_adapter`."""

    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False


class UnloadBody(Body):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: str = ""


class CollectiveRpcBody(Body):
    """`POST /collective_rpc`."""

    method: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict, validation_alias=AliasPath("kwargs"))


class VersionBody(Body):
    """`POST /update_weight_version`."""

    new_version: str


class GenerateParams(Body):
    """`sampling_params` of `POST /generate`."""

    max_new_tokens: int = Field(128, ge=0)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(-1, ge=-1)
    stop: Stop = None
    stop_token_ids: StopIds = None
    sampling_seed: int | None = None
    skip_special_tokens: bool = True


class GenerateBody(Body):
    """`POST /generate`."""

    text: str | None = None
    input_ids: tuple[int, ...] | None = None
    sampling_params: GenerateParams = GenerateParams()
    return_logprob: bool = False
    logprob_start_len: int = Field(-1, ge=-1)
    top_logprobs_num: int = Field(0, ge=0)
    return_text_in_logprobs: bool = False


def sampling_params(body: CompletionBody | GenerateParams) -> SamplingParams:
    """As distillkit has it: 0 for no top-k."""
    limit = body.max_tokens if isinstance(body, CompletionBody) else body.max_new_tokens
    stop = (body.stop,) if isinstance(body.stop, str) else body.stop or ()
    top_k = max(body.top_k, 0)
    return SamplingParams(limit, body.temperature, body.top_p, top_k, stop, body.stop_token_ids or ())
