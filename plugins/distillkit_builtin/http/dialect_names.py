"""The names of the dialects, apart from their code, so that `distillkit plugins list` starts fast."""

from typing import Literal

DialectName = Literal["auto", "prompt_logprobs", "echo", "sglang"]
