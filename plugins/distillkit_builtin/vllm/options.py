"""The options of sampler `vllm`."""

from distillkit_builtin.http.options import MAX_LOGPROBS, MaxLogprobs
from distillkit_builtin.pushed.options import PushedSamplerOptions


class VllmSamplerOptions(PushedSamplerOptions):
    """What its live side needs to know besides the run."""

    max_logprobs: MaxLogprobs = MAX_LOGPROBS
