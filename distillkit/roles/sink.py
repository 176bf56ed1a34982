"""Role `sink`: where metrics, events and records also go."""

from abc import abstractmethod
from typing import ClassVar

from distillkit.events import Event
from distillkit.roles.plugin import Plugin


class Sink(Plugin):
    """Where metrics and events also go. Its exceptions are caught, counted and logged; they never end a run.

    It lives in a thread of its own, with an event loop of its own: `open`, `emit` and `close` are called there, one
    after the other. One that blocks there holds up nothing but itself.
    """

    role: ClassVar[str] = "sink"

    closing_seconds: ClassVar[float] = 30.0
    """How long the end of a run waits until it has taken all events and is closed."""

    @abstractmethod
    def emit(self, event: Event) -> None:
        """Take one event. The run waits for a sink for five seconds in all; then it goes on, and events queue up.

        Of a queue of 10,000 the run says at its end how many more were dropped. Fast `PhaseProgress` comes in groups,
        and in a step of 200 completions or more not for each of them.
        """

    def silence(self) -> None:
        """Show nothing on the terminal from now on; for `distillkit -q`. Sinks that write elsewhere go on.

        A sink that has this method shows things on the terminal: it is opened before and closed after all others.
        """
