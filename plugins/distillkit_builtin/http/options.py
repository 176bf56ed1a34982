"""The options of scorer `http`."""

from pydantic import Field

from distillkit_builtin.http.models import DialectName
from distillkit_builtin.remote.options import RemoteOptions


class HttpScorerOptions(RemoteOptions):
    """What its live side needs to know besides the teacher."""

    dialect: DialectName = Field(
        "auto", description="How logprobs are requested: prompt_logprobs (vLLM), echo, sglang; auto: what works."
    )
    topk: int = Field(0, ge=0, description="How many top-k tokens to request at each position besides; 0: none.")
    cache: str | None = Field(
        None,
        description="SQLite file that keeps scores, shared by runs; name a new one when the server's weights change.",
    )
