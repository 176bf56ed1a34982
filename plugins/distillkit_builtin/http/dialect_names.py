"""The names of the dialects, and what one of them cannot do; apart from their code, so that listing plugins is fast."""

from typing import Literal

DialectName = Literal["auto", "prompt_logprobs", "echo", "sglang"]
ONLY_SCORES = (
    "it only scores, since it is asked by SGLang's /generate (dialect sglang); an evaluator that has teachers write "
    "(teacher_trace, pattern with compare) would end the run at its first evaluation: leave it out, set compare: "
    "false, or serve this teacher by vLLM"
)
"""What follows the teacher's name in notes, notices and failures."""
