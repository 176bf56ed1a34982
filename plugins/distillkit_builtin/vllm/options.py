"""The options of sampler `vllm`."""

from pydantic import Field

from distillkit_builtin.http.options import MAX_LOGPROBS, MaxLogprobs
from distillkit_builtin.remote.options import RemoteOptions


class VllmSamplerOptions(RemoteOptions):
    """What its live side needs to know besides the run."""

    model: str | None = Field(None, description="The base model as the servers call it; null: the one that they serve.")
    max_logprobs: MaxLogprobs = MAX_LOGPROBS
    server_run_dir: str | None = Field(
        None,
        description="Where the servers see the run's directory (a container's mount); null: at the same path.",
    )
