"""The options of every sampler whose servers are given the student's weights."""

from pydantic import Field

from distillkit_builtin.remote.options import RemoteOptions


class PushedSamplerOptions(RemoteOptions):
    """What their live sides need to know besides the run."""

    model: str | None = Field(None, description="The base model as the servers call it; null: the one that they serve.")
    server_run_dir: str | None = Field(
        None,
        description="Where the servers see the run's directory (a container's mount); null: at the same path.",
    )
