"""Whose server is meant, in front of what is wrong with it: a config may name many."""

from collections.abc import Iterator
from contextlib import contextmanager

from distillkit.errors import InputError
from distillkit_builtin.remote.results import UnansweredError


@contextmanager
def named(who: str) -> Iterator[None]:
    """InputErrors, and requests that nobody answered, become InputErrors that begin with `who`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{who}: {error}") from error
    except UnansweredError as error:
        raise InputError(f"{who}: {error.reason}") from error
