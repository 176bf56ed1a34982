"""What can go wrong, by who has to fix it.

Every message says what was tried, where, and how to fix it. The command line turns `InputError` into exit code 2
and every other `DistillkitError` into exit code 1; a library call never exits.
"""

import asyncio
import difflib
from collections.abc import Iterable, Mapping


class DistillkitError(Exception):
    """Base class: catch this to catch everything that distillkit raises on purpose."""


def is_interrupt(error: BaseException) -> bool:
    """Whether it ends a run because somebody asked for that: nothing has failed."""
    return isinstance(error, KeyboardInterrupt | asyncio.CancelledError)


class InputError(DistillkitError, ValueError):
    """The user's input is wrong: a config, a dataset, a name, a path.

    Found before anything is loaded or created, but for what cannot be known then: weights that cannot be read, a
    dataset that changes during the run.
    """


class ConfigError(InputError):
    """A config key, value, plugin name or plugin option is wrong."""


class PluginNotFoundError(ConfigError):
    """No plugin of that role and name is registered."""


class DataError(InputError):
    """Rows of a dataset are wrong; the message names file, line and field of each."""

    def __init__(self, message: str, options: Mapping[str, str] | None = None) -> None:
        """`options` are those of the dataset by which it could be read: `distillkit init --from` writes them."""
        super().__init__(message)
        self.options = options or {}


class RowError(DataError):
    """One field of one row is wrong; whoever reads the rows adds where it is, and says rows of one kind together."""

    def __init__(self, field: str, message: str, fix: str = "") -> None:
        """`field` is the row's key, such as `messages`; `fix` is what to write, such as a line of the config.

        It is said once for all rows that have this problem, and fixes all of them.
        """
        super().__init__(f"{field}: {message}")
        self.field = field
        self.fix = fix


class MissingExtraError(InputError):
    """A plugin needs packages that are not installed; the message names the pip command that fixes it."""


class PluginError(DistillkitError):
    """A plugin broke the contract of its role; the message names its class."""


class AlignmentError(DistillkitError):
    """Logprobs, token ids or masks do not describe the same tokens. They are never padded or guessed."""


class BadStepError(DistillkitError):
    """An optimizer step was refused, since a number in it is not finite; the student's weights are as they were."""


class RunFailedError(DistillkitError):
    """The run could not go on, or trained nothing."""


def error_text(error: BaseException) -> str:
    """An exception's class and message as a sentence: `KeyError: no key 'x'`, of which Python says `'x'` alone."""
    said = f"no key {error.args[0]!r}" if type(error) is KeyError and len(error.args) == 1 else str(error)
    return f"{type(error).__name__}: {said}".rstrip(": ")


def suggest(word: str, known: Iterable[str]) -> str:
    """How to fix a name that is not known: `did you mean 'field'? Known: field, single`."""
    names = list(known)
    close = difflib.get_close_matches(word[:100], names, n=1)
    start = f"did you mean {close[0]!r}? " if close else ""
    return f"{start}Known: {', '.join(names) or 'none'}"
