"""Which function responds to which requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.transport.messages import Request, Response

Function = Callable[[Request, Fault | None], Response]
Routes = Mapping[tuple[str, str], Function]
"""Handlers by HTTP method and path."""


@dataclass(frozen=True, slots=True)
class RawResponse(Response):
    """Bytes as they are, with the status 200 unless another is given."""

    content_type: str = "text/plain"
    cut: bool = False
    """The connection ends half-way through the body."""
