"""How far a window's phases are, told as often as can be read: a large window does not tell of each outcome."""

from collections.abc import Callable

from distillkit.events import Phase, PhaseProgress

MOST_TOLD = 200
"""Of a window with so many completions sinks hear of every second one, with twice as many of every third; and of the
last state of each phase."""


class ToldProgress:
    """Passes on the states of one window's phases."""

    def __init__(self, pass_on: Callable[[PhaseProgress], None], completions: int) -> None:
        """Of a window of so many completions; nothing is told yet."""
        self._pass_on = pass_on
        self._every = 1 + completions // MOST_TOLD
        self._told: dict[Phase, PhaseProgress] = {}

    def goes_on(self, phase: Phase, done: int, total: int) -> None:
        """Behind an outcome: `done` of `total` are there."""
        if done % self._every == 0 or done == total:
            self._tell(PhaseProgress(phase, done, total))

    def ended(self, phase: Phase, done: int, total: int) -> None:
        """Tell the last state, if it was not told: what fails is not done, so the last outcome need not be due."""
        if done and self._told.get(phase) != PhaseProgress(phase, done, total):
            self._tell(PhaseProgress(phase, done, total))

    def _tell(self, now: PhaseProgress) -> None:
        self._told[now.phase] = now
        self._pass_on(now)
