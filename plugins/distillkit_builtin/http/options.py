"""The options of scorer `http`, and what it has in common with sampler `vllm`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from distillkit_builtin.http.models import DialectName
from distillkit_builtin.remote.options import RemoteOptions

MaxLogprobs = Annotated[
    int | None,
    Field(
        ge=1,
        description="How many logprobs a position the servers give at most: vLLM's --max-logprobs, 20 by default; "
        "null: any number (-1 there, and SGLang).",
    ),
]
MAX_LOGPROBS = 20
"""vLLM's default."""


def more_logprobs(amount: int) -> str:
    """What a user does to get so many logprobs a position out of vLLM."""
    return f"start vLLM with --max-logprobs {amount} and set max_logprobs: {amount}"


class HttpScorerOptions(RemoteOptions):
    """What its live side needs to know besides the teacher."""

    gone: ClassVar[Mapping[str, str]] = {
        "topk": "how many top-k tokens are asked for follows from the loss now (`k` of loss divergence); what the "
        "server gives at most (vLLM's --max-logprobs) is max_logprobs"
    }

    dialect: DialectName = Field(
        "auto",
        description="How logprobs are requested: prompt_logprobs (vLLM), vllm_tokens (its token interface: the "
        "response's rows alone, and logprobs of given ids), echo, sglang; auto: what works.",
    )
    max_logprobs: MaxLogprobs = MAX_LOGPROBS
    cache: str | None = Field(
        None,
        description="SQLite file that keeps scores, shared by runs; name a new one when the server's weights change.",
    )
