"""What clients send to an SGLang server: the fields of its requests, as `bodies` has those of vLLM."""

from typing import ClassVar

from pydantic import Field, JsonValue

from distillkit_loopback.openai.bodies import Sampling, Stop
from distillkit_loopback.openai.errors import Refused
from distillkit_loopback.transport.messages import Body


class GenerateParams(Sampling):
    """`sampling_params` of `POST /generate`: the fields of SGLang's SamplingParams."""

    uncomputed: ClassVar[tuple[str, ...]] = (
        *("n", "logit_bias", "stop_regex", "custom_params", "json_schema", "regex", "ebnf"),
        *("structural_tag", "ignore_eos", "min_new_tokens", "beam_width", "watermark"),
    )

    max_new_tokens: int = Field(128, ge=0)
    min_new_tokens: int = 0
    stop_regex: Stop = None
    no_stop_trim: bool = False
    json_schema: str | None = None
    regex: str | None = None
    ebnf: str | None = None
    structural_tag: str | None = None
    custom_params: JsonValue = None
    stream_interval: int | None = None
    sampling_seed: int | None = None
    beam_width: int | None = None
    watermark: JsonValue = None

    @property
    def limit(self) -> int:
        """`max_new_tokens`."""
        return self.max_new_tokens


class GenerateBody(Body):
    """`POST /generate`: the fields of SGLang's GenerateReqInput that are of any use for text."""

    uncomputed: ClassVar[tuple[str, ...]] = (
        *("input_embeds", "image_data", "video_data", "audio_data", "stream", "watermark"),
        *("custom_logit_processor", "session_params", "max_thinking_tokens", "require_reasoning"),
        *("positional_embed_overrides", "token_indices_to_pool", "multi_item_delimiter_indices"),
        *("return_sampling_mask", "return_flat_raw_top_logprobs", "return_flat_raw_output_top_logprobs"),
        *("return_flat_raw_top_logprobs_b64", "return_hidden_states", "return_routed_experts", "return_indexer_topk"),
        "return_prompt_token_ids",
    )

    text: str | None = None
    input_ids: tuple[int, ...] | None = None
    sampling_params: GenerateParams = GenerateParams()
    return_logprob: bool = False
    logprob_start_len: int = Field(-1, ge=-1)
    top_logprobs_num: int = Field(0, ge=0)
    return_text_in_logprobs: bool = False
    lora_path: str | None = None
    cache_salt: str | None = None
    extra_key: str | None = None
    stream: bool = False
    input_embeds: JsonValue = None
    image_data: JsonValue = None
    video_data: JsonValue = None
    audio_data: JsonValue = None
    token_ids_logprob: tuple[int, ...] | None = None
    watermark: JsonValue = None
    custom_logit_processor: str | None = None
    session_params: JsonValue = None
    max_thinking_tokens: int | None = None
    require_reasoning: bool = False
    positional_embed_overrides: JsonValue = None
    token_indices_to_pool: JsonValue = None
    multi_item_delimiter_indices: JsonValue = None
    return_sampling_mask: bool | None = None
    sampling_logprobs_mode: str | None = None
    return_flat_raw_top_logprobs: bool = False
    return_flat_raw_output_top_logprobs: bool = False
    return_flat_raw_top_logprobs_b64: bool = False
    return_hidden_states: JsonValue = False
    return_routed_experts: bool = False
    return_indexer_topk: bool = False
    return_prompt_token_ids: bool = False
    return_entropy: bool = False
    rid: str | None = None
    session_id: str | None = None
    priority: int | None = None
    routing_key: str | None = None
    log_metrics: bool = True
    no_logs: bool = False

    def require_computed(self) -> None:
        """Raise Refused for a field that this server would have to ignore."""
        self.sampling_params.require_computed()
        for name in self.uncomputed:
            if getattr(self, name):
                raise Refused(400, f"the loopback server does not compute {name}", param=name)


class AdapterBody(Body):
    """`POST /load_lora_adapter`, and `/unload_lora_adapter`, which needs the name alone."""

    lora_name: str
    lora_path: str = ""
    pinned: bool = False


class WeightsFromDiskBody(Body):
    """`POST /update_weights_from_disk`."""

    model_path: str
    weight_version: str | None = None
    flush_cache: bool = True


class WeightVersionBody(Body):
    """`POST /update_weight_version`."""

    new_version: str
    abort_all_requests: bool = True
