"""What a terminal shows while a command loads, samples and scores; elsewhere nothing."""

from rich.status import Status

from distillkit.cli.reporting import ERR
from distillkit.events import PhaseProgress

DOING = {"sample": "sampling", "score": "scoring"}


class Working:
    """A line at the foot of the terminal, gone when the block ends."""

    def __init__(self, doing: str = "loading ...", *, quiet: bool) -> None:
        """`doing`: what is done first; `quiet`: no line."""
        self._status = None if quiet else Status(doing, console=ERR)

    def __enter__(self) -> "Working":
        """Show the line."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take it away."""
        self.stop()

    def stop(self) -> None:
        """Take it away before the block ends."""
        if self._status is not None:
            self._status.stop()

    def progress(self, event: PhaseProgress) -> None:
        """Say how far it is."""
        self.say(f"{DOING[event.phase]} {event.done}/{event.total}")

    def say(self, doing: str) -> None:
        """Say what is done now."""
        if self._status is not None:
            self._status.update(doing)
