"""What a server of some flavor answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distillkit_builtin.fireworks.loopback.messages import Answer, Request
from distillkit_builtin.http.loopback.faults import Fault

Function = Callable[[Request, Fault | None], Answer]
Routes = Mapping[tuple[str, str], Function]
"""By method and path."""


@dataclass(frozen=True, slots=True)
class Raw(Answer):
    """Bytes as they are, with the status 200 unless another is given."""

    content_type: str = "text/plain"
    cut: bool = False
    """The connection ends half-way through the body."""
