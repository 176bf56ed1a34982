"""What a program ends with whose call of `main` failed, where nobody caught the error: its message, as a command's."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from distillkit.errors import DistillkitError, InputError
from distillkit.files.redaction import redact

ExceptHook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def error_lines(error: DistillkitError) -> list[str]:
    """What was wrong (`error:`) or went wrong (`failed:`), and the notes on it."""
    said = f"{'error' if isinstance(error, InputError) else 'failed'}: {error}"
    return [redact(line) for line in (said, *getattr(error, "__notes__", ()))]


@dataclass(slots=True)
class _LastWords:
    """An exception hook: one error is its lines alone, every other one is what it was before."""

    before: ExceptHook
    error: DistillkitError

    def __call__(self, cls: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        """Say what ends the program."""
        if error is self.error:
            print(*error_lines(self.error), sep="\n", file=sys.stderr)
        else:
            self.before(cls, error, traceback)


def end_without_traceback(error: DistillkitError) -> None:
    """Let `error` end the program without a traceback if nobody catches it; who catches it sees no difference."""
    hook = sys.excepthook
    sys.excepthook = _LastWords(hook.before if isinstance(hook, _LastWords) else hook, error)
