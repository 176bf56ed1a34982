"""Role `sink`: where metrics, events and records also go."""

from abc import abstractmethod
from typing import ClassVar

from distillkit.events import Event
from distillkit.roles.plugin import Plugin


class Sink(Plugin):
    """Where metrics and events also go. Its exceptions are caught, counted and logged; they never end a run."""

    role: ClassVar[str] = "sink"

    @abstractmethod
    def emit(self, event: Event) -> None:
        """Take one event. Must return at once: what is slow belongs into a thread of the sink's own."""

    def silence(self) -> None:
        """Show nothing on the terminal from now on; for `distillkit -q`. Sinks that write elsewhere go on."""
