"""What a command says when it cannot do what it was asked to, and the exit code that goes with it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from distillkit.errors import DistillkitError, InputError

ERR = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
OUT = Console(soft_wrap=True, highlight=False, markup=False)


@contextmanager
def reporting(*, verbose: bool = False) -> Iterator[None]:
    """Turn errors into a message and an exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch)\.")
    try:
        with _debug_messages(wanted=verbose):
            yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        raise typer.Exit(_report(error, verbose=verbose)) from error


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
            code, message = 1, f"failed: {type(error).__name__}: {error}{hint}"
    if verbose and code == 1:
        ERR.print_exception()
    for line in (message, *getattr(error, "__notes__", ())):
        ERR.print(line)
    return code


class _ToErr(logging.Handler):
    """Through the console, which a live display makes way for."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, unless it is a notice, which the sinks show."""
        if not getattr(record, "told", False):
            ERR.print(self.format(record))


@contextmanager
def _debug_messages(*, wanted: bool) -> Iterator[None]:
    """Show distillkit's log while this lasts."""
    log, handler = logging.getLogger("distillkit"), _ToErr()
    level = log.level
    if wanted:
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
