"""Types of the options that student and scorer `local` share, and what describes them. Needs no torch."""

from typing import Annotated, Literal

from pydantic import StringConstraints

DeviceName = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
DTypeName = Literal["auto", "bfloat16", "float16", "float32"]
ForwardName = Literal["auto", "fast", "plain"]
FORWARD = (
    "How it is computed. plain: transformers' own forward, sequences padded. fast: our own forward for sampling and "
    "scoring, of architectures whose parts it knows, and packed sequences for training; an error where that is not "
    "found, at the start, to compute the same. auto: each of the two where it is, else plain."
)
"""The description of the option `forward`."""
ExportDType = Literal["float32", "base"]
