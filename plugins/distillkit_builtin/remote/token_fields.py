"""The fields of vLLM's `POST /inference/v1/generate`, as `request_fields` has those of other dialects.

Read off vLLM 0.32.0's SamplingParams and GenerateRequest. Unlike `/v1/completions` it takes nothing from a model's
generation_config.json but what ends a completion.
"""

from collections.abc import Mapping

from distillkit.frozen import frozen
from distillkit_builtin.remote.field_reasons import NO_DEFAULT, NOT_OURS, NOT_THE_NUMBERS, Fields

TOKENS: Fields = frozen(
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
        "allowed_token_ids": None,
        "watermarking": False,
        "min_tokens": 0,
        "ignore_eos": False,
        "stop": [],
        "stop_token_ids": [],
        "include_stop_str_in_output": False,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "detokenize": False,  # but where stop strings are looked for
    }
)
"""`sampling_params` of vLLM's `POST /inference/v1/generate`."""

TOKENS_UNSENT: Mapping[str, str] = frozen(
    {
        "seed": "of the token behind a scored prompt, which is ignored; what is sampled has a seed of its own",
        "logprobs": "asked for where logprobs of sampled tokens are read",
        "prompt_logprobs": NO_DEFAULT,
        "skip_reading_prefix_cache": "true where a prompt is scored; what is sampled has the same distribution without",
        "logprob_token_ids": NO_DEFAULT,
        "structured_outputs": NO_DEFAULT,
        "bad_words": NO_DEFAULT,
        "repetition_detection": NO_DEFAULT,
        "thinking_token_budget": NO_DEFAULT,
        "trace_decode_token_ids": NO_DEFAULT,
        "extra_args": "of logits processors that a server was extended by; what those do by themselves is measured",
        "flat_logprobs": NOT_THE_NUMBERS,
        "stream_interval": NOT_THE_NUMBERS,
        "skip_clone": NOT_THE_NUMBERS,
        "output_kind": "vLLM sets it",
        "output_text_buffer_length": "vLLM sets it",
        "routed_experts_prompt_start": NOT_OURS,
    }
)

TOKENS_BODY: Fields = frozen({"stream": False, "output_mode": "tokens"})
"""Beside `sampling_params`."""

TOKENS_BODY_UNSENT: Mapping[str, str] = frozen(
    {
        "return_token_ids": "asked for where the prompt is compared",
        "cache_salt": "the version's label where a server's own weights are replaced",
        "priority": NOT_THE_NUMBERS,
        "request_id": NOT_THE_NUMBERS,
        "stream_options": NOT_THE_NUMBERS,
        "kv_transfer_params": NOT_THE_NUMBERS,
        "token_offsets": NOT_OURS,
        "features": NOT_OURS,
        "content_parts": NOT_OURS,
        "ec_transfer_params": NOT_OURS,
        "reasoning_ended": "of structured outputs, which are not asked for",
        "reasoning_parser_kwargs": "of structured outputs, which are not asked for",
    }
)
