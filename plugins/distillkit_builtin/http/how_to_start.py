"""How a server is started so that its completions can be trained on: what errors say, for each kind of server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HowToStart:
    """What a server needs."""

    raw: str
    """So that it reports logprobs at temperature 1."""
    raw_of_adapters: str
    """The same, of a server that does so for its base model."""
    untouched: str
    """So that it changes nothing about the sampling."""
    limits: str
    """So that nothing but the request limits a completion."""


VLLM_RAW = "start vLLM with --logprobs-mode raw_logprobs"
VLLM = HowToStart(
    raw=VLLM_RAW,
    raw_of_adapters=f"{VLLM_RAW}; if it is, vLLM leaves a LoRA on the head (lm_head) out of the logprobs of prompts: "
    "merge this adapter into its base model, or train one without the head",
    untouched="start vLLM with --generation-config vllm and without --override-generation-config and logits "
    "processors, and look for a proxy before it that changes requests",
    limits="start vLLM with --generation-config vllm (max_new_tokens of a generation config limits every request), and "
    "with a --max-model-len that holds prompt and completion",
)
SGLANG_RAW = (
    "SGLang reports them at the sampling temperature unless it is told otherwise: start it with "
    "SGLANG_RETURN_ORIGINAL_LOGPROB=1 in its environment"
)
SGLANG = HowToStart(
    raw=SGLANG_RAW,
    raw_of_adapters=f"{SGLANG_RAW}; if it is, merge this adapter into its base model",
    untouched="start SGLang without watermarks and custom logit processors, and look for a proxy before it that "
    "changes requests",
    limits="start SGLang with a --context-length that holds prompt and completion",
)
