"""Every field of a request for tokens that could change a number, by its neutral value: one table a dialect.

A field that a request leaves out has the server's default, and that is not always a neutral one: vLLM and Fireworks
take top_k, top_p, min_p, temperature and repetition_penalty from the model's generation_config.json, SGLang from
`--sampling-defaults` and `--preferred-sampling-params`. So each request begins with its dialect's table here, also one
that only scores, and overwrites what it has an opinion on. What is not sent stands in a second table with the reason
why its default changes no number. A test compares both with the request models of the loopback servers, which list the
real servers' fields, so that none is forgotten. SGLang's tables are in `generate_fields`, those of vLLM's token
interface in `token_fields`.

Read off vLLM's CompletionRequest (0.24 to 0.32, and what was newest in 2026), SGLang 0.5.23's SamplingParams and
GenerateReqInput, and fireworks-ai 1.2.30's CompletionCreateParams.
"""

import re
from collections.abc import Mapping

from distillkit.frozen import frozen
from distillkit_builtin.remote.field_reasons import NO_DEFAULT, NOT_OURS, NOT_THE_NUMBERS, Fields
from distillkit_builtin.remote.generate_fields import GENERATE, GENERATE_BODY
from distillkit_builtin.remote.token_fields import TOKENS, TOKENS_BODY

COMPLETIONS: Fields = frozen(
    {
        "n": 1,
        "stream": False,
        "echo": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,  # which vLLM and SGLang both take for "all"; SGLang refuses 0
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logit_bias": None,
        "allowed_token_ids": None,
        "use_beam_search": False,
        "watermarking": False,
        "min_tokens": 0,
        "ignore_eos": False,
        "stop": [],
        "stop_token_ids": [],
        "include_stop_str_in_output": False,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "add_special_tokens": False,
        "truncate_prompt_tokens": None,
    }
)
"""`POST /v1/completions` of vLLM, and of servers that take after it."""

COMPLETIONS_UNSENT: Mapping[str, str] = frozen(
    {
        "seed": "of the token behind a scored prompt, which is ignored; what is sampled has a seed of its own",
        "logprobs": "asked for where logprobs of sampled or echoed tokens are read",
        "prompt_logprobs": "asked for where a prompt is scored; " + NO_DEFAULT,
        "return_token_ids": "asked for where ids are read",
        "return_tokens_as_token_ids": "asked for where ids are read",
        "bad_words": NO_DEFAULT,
        "logprob_token_ids": NO_DEFAULT,
        "response_format": NO_DEFAULT,
        "structured_outputs": NO_DEFAULT,
        "repetition_detection": NO_DEFAULT,
        "thinking_token_budget": NO_DEFAULT,
        "vllm_xargs": "of logits processors that a server was extended by; what those do by themselves is measured",
        "length_penalty": "of beam search, which is switched off",
        "best_of": "vLLM, SGLang: 1 where it is left out, and gone from newer ones",
        "truncation_side": "of truncate_prompt_tokens, which is null",
        "suffix": NO_DEFAULT,
        "prompt_embeds": NOT_OURS,
        "mm_payload": NOT_OURS,
        "user": NOT_OURS,
        "stream_options": NOT_THE_NUMBERS,
        "stream_interval": NOT_THE_NUMBERS,
        "priority": NOT_THE_NUMBERS,
        "request_id": NOT_THE_NUMBERS,
        "session_id": NOT_THE_NUMBERS,
        "cache_salt": "the version's label where a server's own weights are replaced; elsewhere null: what others "
        "computed of the same prefix may be used, which has the same values",
        "kv_transfer_params": NOT_THE_NUMBERS,
        "ec_transfer_params": NOT_OURS,
        "routed_experts_prompt_start": NOT_OURS,
        "return_token_offsets": NOT_OURS,
        "return_mm_kwargs": NOT_OURS,
    }
)

FIREWORKS: Fields = frozen(
    {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,  # the service takes 0 to 100
        "min_p": 0.0,
        "typical_p": 1.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "ignore_eos": False,
        "context_length_exceeded_behavior": "error",  # by default a completion is cut shorter than was asked for
    }
)
"""`POST /inference/v1/completions` of Fireworks, as far as the SDK does not send it itself."""

FIREWORKS_UNSENT: Mapping[str, str] = frozen(
    {
        "n": "the SDK sends 1",
        "stream": "the SDK sends true, and puts the parts together",
        "raw_output": "the SDK sends true, to have ids",
        "perf_metrics_in_response": "the SDK sends true",
        "seed": "of the token behind a scored prompt, which is ignored; what is sampled has a seed of its own",
        "stop": "sent where a config has stop strings; " + NO_DEFAULT,
        "echo": "sent where a prompt is scored; false where it is left out",
        "echo_last": NO_DEFAULT,
        "top_logprobs": "sent where top-k tokens are wanted; " + NO_DEFAULT,
        "return_token_ids": "ids come by raw_output",
        "max_completion_tokens": "another name of max_tokens, which is sent",
        "logit_bias": NO_DEFAULT,
        "mirostat_target": "Mirostat is off where it is left out, and no number says so",
        "mirostat_lr": "of Mirostat, which is off",
        "response_format": NO_DEFAULT,
        "reasoning_effort": "of chat templates, which a prompt of ids does not go through",
        "reasoning_history": "of chat templates, which a prompt of ids does not go through",
        "thinking": "of chat templates, which a prompt of ids does not go through",
        "prediction": "a guess to be verified: the tokens are those of the model all the same",
        "speculation": "a guess to be verified: the tokens are those of the model all the same",
        "images": NOT_OURS,
        "metadata": NOT_OURS,
        "user": NOT_OURS,
        "service_tier": NOT_THE_NUMBERS,
        "prompt_cache_isolation_key": NOT_THE_NUMBERS,
        "prompt_cache_key": NOT_THE_NUMBERS,
    }
)

SENT = frozenset({*COMPLETIONS, *TOKENS, *TOKENS_BODY, *GENERATE, *GENERATE_BODY, *FIREWORKS})
WORD = re.compile(r"[a-z_]+")
UNKNOWN = re.compile(
    r"(?i)unrecognized|unknown|unexpected|unsupported|not supported|extra (?:inputs|fields)|not permitted"
)


def refused_field(message: str) -> str:
    """What to add to a server's refusal of a field that it does not know: what to do; empty for any other refusal."""
    named = [word for word in WORD.findall(message) if word in SENT]
    if not named or not UNKNOWN.search(message):
        return ""
    return (
        f"; requests name every sampling field, so that no default of the server's changes a number, and {named[0]!r} "
        "is not left out silently: use a server that knows it (vLLM, SGLang), or let it ignore fields that it does not "
        "know"
    )
