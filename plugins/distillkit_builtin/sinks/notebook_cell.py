"""One output of a notebook's cell that changes in place, where a terminal has its foot."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from rich.console import RenderableType
from rich.jupyter import JupyterMixin

SECONDS_BETWEEN = 0.5
"""At most so often is it sent: a notebook keeps up with no more."""


@dataclass(frozen=True, slots=True)
class _Shown(JupyterMixin):
    """What rich draws, as a notebook takes it."""

    content: RenderableType

    def __rich__(self) -> RenderableType:
        """The content."""
        return self.content


@dataclass(slots=True)
class NotebookCell:
    """The output: made with its first content, replaced by every later one."""

    clock: Callable[[], float] = time.monotonic
    _handle: Any = field(default=None, init=False)  # IPython's DisplayHandle
    _sent_at: float = field(default=0.0, init=False)

    def show(self, content: RenderableType, *, last: bool = False) -> None:
        """Let this stand in the cell; it is left out if the one before is hardly older, unless it is the `last`."""
        now = self.clock()
        if self._handle is None:
            notebook = import_module("IPython.display")  # there wherever a notebook is
            self._handle = notebook.display(_Shown(content), display_id=True)
        elif last or now - self._sent_at >= SECONDS_BETWEEN:
            self._handle.update(_Shown(content))
        else:
            return
        self._sent_at = now
