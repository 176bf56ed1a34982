"""The options of sampler `vllm`."""

from distillkit_builtin.http.options import MAX_LOGPROBS, MaxLogprobs
from distillkit_builtin.pushed.options import PushedSamplerOptions

LOWEST_TEMPERATURE = 0.01
"""Beside 0; vLLM 0.32 takes it for anything between (`SamplingParams`)."""


class VllmSamplerOptions(PushedSamplerOptions):
    """What its live side needs to know besides the run."""

    max_logprobs: MaxLogprobs = MAX_LOGPROBS
