"""What a command says when it cannot do what it was asked to, and the exit code that goes with it."""

import logging
import os
import textwrap
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from distillkit.errors import DistillkitError, InputError, error_text
from distillkit.files.redaction import redact
from distillkit.ranks import ONLY, Rank


class Terminal(Console):
    """Prints texts as they are, in lines as they are, but without the secrets that stand in them."""

    def __init__(self, *, stderr: bool) -> None:
        """On standard error, or on standard output."""
        super().__init__(stderr=stderr, soft_wrap=True, highlight=False, markup=False)

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as the base class has it
        """What is no text is rich's own, and made of words of ours."""
        super().print(*(redact(item) if isinstance(item, str) else item for item in objects), **options)

    def say(self, text: str) -> None:
        """Print sentences: on a terminal their lines end between words, elsewhere they stay as they are."""
        text = redact(text)  # before a secret could be broken up
        if self.file.isatty():
            text = "\n".join(_filled(line, self.width) for line in text.split("\n"))
        self.print(text)


def _filled(line: str, width: int) -> str:
    """A line broken between words, what follows indented; one that is indented itself is there to be copied."""
    if line[:1].isspace():
        return line
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


RANK_0_SPEAKS_S = 10.0
"""torchrun ends all processes when one has ended: an error that all find is said by rank 0 if the others wait."""
ERR = Terminal(stderr=True)
OUT = Terminal(stderr=False)


@contextmanager
def reporting(*, verbose: bool = False) -> Iterator[Rank]:
    """Turn errors into a message and an exit code; gives which process this is, as torchrun set the environment."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch)\.")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # such as that torch is not there: we say so
    rank = ONLY
    try:
        rank = Rank.from_environment()
        if not rank.runs_engine:  # rank 0 says everything once
            OUT.quiet = ERR.quiet = True
        with _log_messages(debug=verbose):
            yield rank
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if not rank.runs_engine and isinstance(error, Exception):
            _let_rank_0_speak(rank)
        raise typer.Exit(_report(error, verbose=verbose)) from error


def _let_rank_0_speak(rank: Rank) -> None:
    """Wait until rank 0, which mostly fails of the same, has said so; then torchrun ends this process too."""
    time.sleep(RANK_0_SPEAKS_S)
    ERR.quiet = False
    ERR.say(f"rank {rank.index} of {rank.count}, and no other so far:")


def _report(error: BaseException, *, verbose: bool) -> int:
    """Say what went wrong and what its notes say; returns the exit code."""
    match error:
        case KeyboardInterrupt():
            code, message = 130, "interrupted"
        case InputError():
            code, message = 2, f"error: {error}"
        case DistillkitError():
            code, message = 1, f"failed: {error}"
        case _:
            hint = "" if verbose else " (-v shows the traceback)"
            code, message = 1, f"failed: {error_text(error)}{hint}"
    if verbose and code == 1:  # not as rich prints them, which breaks a key up where a line ends
        ERR.print("".join(traceback.format_exception(error)).rstrip())
    for line in (message, *getattr(error, "__notes__", ())):
        ERR.say(line)
    return code


class _ToErr(logging.Handler):
    """Through the console, which a live display makes way for."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, unless it is a notice, which the sinks show."""
        if not getattr(record, "shown_by_sinks", False):
            ERR.print(self.format(record))


@contextmanager
def _log_messages(*, debug: bool) -> Iterator[None]:
    """Show warnings of libraries, which repeat what a service answers, and with `debug` all of distillkit's log.

    Python shows warnings by itself where no handler is set up; then they would pass by `Terminal`.
    """
    root, log, handler = logging.getLogger(), logging.getLogger("distillkit"), _ToErr()
    level, propagate = log.level, log.propagate
    if not root.handlers:
        root.addHandler(handler)
    if debug:
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        log.propagate = False  # each message once
    try:
        yield
    finally:
        for logger in (root, log):
            logger.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
