"""What clients send: every field of the real servers' requests, as far as it could change a number.

Fields that the loopback server does not know are let through, as the real servers do. One that it knows and does not
compute is refused with any value but the neutral one, where the real servers compute it.
"""

from typing import ClassVar

from pydantic import AliasPath, Field, JsonValue

from distillkit_loopback.openai.errors import Refused
from distillkit_loopback.sampling_fields import SamplingFields
from distillkit_loopback.transport.messages import Body

Prompt = str | tuple[int, ...]
Stop = str | tuple[str, ...] | None
StopIds = tuple[int, ...] | None


class Sampling(Body):
    """The fields of both dialects that say how tokens are sampled; None is the server's default."""

    uncomputed: ClassVar[tuple[str, ...]] = ()
    """Fields that are not computed here: refused unless they are empty, or their default."""

    n: int = 1
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    stop: Stop = None
    stop_token_ids: StopIds = None
    ignore_eos: bool | None = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True

    @property
    def limit(self) -> int:
        """How many tokens are sampled at most."""
        raise NotImplementedError

    def require_computed(self) -> None:
        """Raise Refused for a field that this server would have to ignore."""
        for name in self.uncomputed:
            value = getattr(self, name)
            if value and value != type(self).model_fields[name].default:
                raise Refused(400, f"the loopback server does not compute {name}", param=name)


class CompletionBody(Sampling):
    """`POST /v1/completions`: the fields of vLLM's CompletionRequest."""

    uncomputed: ClassVar[tuple[str, ...]] = (
        *("n", "best_of", "logit_bias", "allowed_token_ids", "bad_words", "suffix", "stream"),
        *("response_format", "structured_outputs", "logprob_token_ids", "vllm_xargs", "prompt_embeds", "mm_payload"),
        *("repetition_detection", "thinking_token_budget", "use_beam_search", "watermarking", "ignore_eos"),
        *("min_tokens", "truncate_prompt_tokens"),
    )

    model: str | None = None
    prompt: Prompt
    max_tokens: int = Field(16, ge=0)
    seed: int | None = None
    logprobs: int | None = Field(None, ge=0)
    prompt_logprobs: int | None = Field(None, ge=0)
    echo: bool = False
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    include_stop_str_in_output: bool = False
    stream: bool | None = False
    stream_options: JsonValue = None
    stream_interval: int | None = None
    suffix: str | None = None
    user: str | None = None
    best_of: int | None = 1
    use_beam_search: bool = False
    watermarking: bool | None = None
    length_penalty: float = 1.0
    min_tokens: int = 0
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    truncation_side: str | None = None
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    logprob_token_ids: tuple[int, ...] | None = None
    prompt_embeds: JsonValue = None
    mm_payload: JsonValue = None
    response_format: JsonValue = None
    structured_outputs: JsonValue = None
    repetition_detection: JsonValue = None
    thinking_token_budget: int | None = None
    vllm_xargs: JsonValue = None
    priority: int = 0
    request_id: str | None = None
    session_id: str | None = None
    cache_salt: str | None = None
    kv_transfer_params: JsonValue = None
    ec_transfer_params: JsonValue = None
    routed_experts_prompt_start: int = 0
    return_token_offsets: bool | None = None
    return_mm_kwargs: bool = True

    @property
    def limit(self) -> int:
        """`max_tokens`."""
        return self.max_tokens


class TokensParams(Sampling):
    """`sampling_params` of `POST /inference/v1/generate`: the fields of vLLM's SamplingParams that are of any use."""

    uncomputed: ClassVar[tuple[str, ...]] = (
        *("n", "logit_bias", "allowed_token_ids", "min_tokens", "ignore_eos", "prompt_logprobs", "watermarking"),
    )

    max_tokens: int = Field(16, ge=1)
    seed: int | None = None
    watermarking: bool | None = None
    min_tokens: int = 0
    allowed_token_ids: tuple[int, ...] | None = None
    include_stop_str_in_output: bool = False
    detokenize: bool = True
    logprobs: int | None = Field(None, ge=0)
    prompt_logprobs: int | None = None
    prompt_logprob_token_ids: tuple[tuple[int, ...], ...] | None = None
    prompt_logprob_start: int | None = Field(None, ge=0)
    skip_reading_prefix_cache: bool | None = None

    @property
    def limit(self) -> int:
        """`max_tokens`."""
        return self.max_tokens


class TokensBody(Body):
    """`POST /inference/v1/generate`."""

    model: str | None = None
    token_ids: tuple[int, ...]
    sampling_params: TokensParams = TokensParams()
    return_token_ids: bool | None = None
    cache_salt: str | None = None
    output_mode: str = "tokens"
    stream: bool = False


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
    """`POST /update_weight_version`, of both."""

    new_version: str


def sampling_params(body: Sampling) -> SamplingFields:
    """As distillkit has it, 0 for no top-k; what is None has the server's own default, which is neutral."""
    stop = (body.stop,) if isinstance(body.stop, str) else body.stop or ()
    return SamplingFields(
        max_tokens=body.limit,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(body.top_k or 0, 0),
        stop=stop,
        stop_ids=body.stop_token_ids or (),
        min_p=body.min_p or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
    )
