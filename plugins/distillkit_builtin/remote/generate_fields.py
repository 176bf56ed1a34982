"""The fields of SGLang's `POST /generate`, as `request_fields` has those of other dialects: sent, or left out and why.

Read off SGLang 0.5.23's SamplingParams and GenerateReqInput.
"""

from collections.abc import Mapping

from distillkit.frozen import frozen
from distillkit_builtin.remote.field_reasons import NO_DEFAULT, NOT_OURS, NOT_THE_NUMBERS, Fields

GENERATE: Fields = frozen(
    {
        "n": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logit_bias": None,
        "min_new_tokens": 0,
        "ignore_eos": False,
        "stop": None,
        "stop_token_ids": None,
        "stop_regex": None,
        "no_stop_trim": False,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "json_schema": None,
        "regex": None,
        "ebnf": None,
        "structural_tag": None,
        "custom_params": None,
    }
)
"""`sampling_params` of SGLang's `POST /generate`; null is sent too: it overrules `--preferred-sampling-params`."""

GENERATE_UNSENT: Mapping[str, str] = frozen(
    {
        "sampling_seed": "of no token, where tokens are scored; what is sampled has a seed of its own",
        "stream_interval": NOT_THE_NUMBERS,
        "watermark": "SGLang does not let --preferred-sampling-params set it; what a server adds to every request by "
        "itself is looked for when a run starts",
        "beam_width": "null where it is left out; by beams an answer has other fields, and is refused",
    }
)

GENERATE_BODY: Fields = frozen(
    {
        "stream": False,
        "return_text_in_logprobs": False,
        "token_ids_logprob": None,
        "lora_path": None,
        "custom_logit_processor": None,
        "session_params": None,
    }
)
"""`POST /generate` of SGLang beside `sampling_params` and what each request says of logprobs."""

GENERATE_BODY_UNSENT: Mapping[str, str] = frozen(
    {
        "watermark": "SGLang does not let --preferred-sampling-params set it; what a server adds to every request by "
        "itself is looked for when a run starts",
        "cache_salt": "the version's label where a server's own weights are replaced; elsewhere null: SGLang keeps the "
        "prefixes of adapters apart by itself",
        "extra_key": "as cache_salt",
        "lora_id": "SGLang finds it by lora_path",
        "sampling_logprobs_mode": "of return_sampling_mask, which is off where it is left out",
        **dict.fromkeys(
            (
                *("max_thinking_tokens", "require_reasoning", "positional_embed_overrides", "token_indices_to_pool"),
                "multi_item_delimiter_indices",
            ),
            NO_DEFAULT,
        ),
        **dict.fromkeys(
            (
                *("text", "input_embeds", "image_data", "video_data", "audio_data", "mm_hashes", "mm_content_hashes"),
                *("use_audio_in_video", "video_config", "modalities", "images_config", "mm_processor_kwargs"),
                *("max_dynamic_patch", "min_dynamic_patch", "image_max_dynamic_patch", "video_max_dynamic_patch"),
                *("need_wait_for_mm_inputs", "num_items_assigned", "encoder_urls", "return_bytes"),
                *("return_sampling_mask", "return_flat_raw_top_logprobs", "return_flat_raw_output_top_logprobs"),
                *("return_flat_raw_top_logprobs_b64", "return_hidden_states", "return_routed_experts"),
                *("routed_experts_start_len", "return_indexer_topk", "return_prompt_token_ids", "return_entropy"),
            ),
            NOT_OURS,
        ),
        **dict.fromkeys(
            (
                *("rid", "session_id", "conversation_id", "priority", "routing_key", "log_metrics", "no_logs"),
                *("custom_labels", "background", "http_worker_ipc", "external_trace_header", "received_time"),
                *("bootstrap_host", "bootstrap_port", "bootstrap_room", "bootstrap_pair_key", "decode_tp_size"),
                *("routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank", "kv_hints"),
            ),
            NOT_THE_NUMBERS,
        ),
    }
)
