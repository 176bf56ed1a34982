"""Several tasks at once: what is left when some of them fail, and generators that are not read to their end."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import TypeVar

from distillkit.roles.attribution import one_line_error

T = TypeVar("T")
log = logging.getLogger("distillkit")


def closing(source: AsyncIterator[T]) -> AbstractAsyncContextManager[AsyncIterator[T]]:
    """Close a generator when the block ends, however it does, so that the backend stops what it was doing."""
    return aclosing(source) if isinstance(source, AsyncGenerator) else nullcontext(source)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception of a group of tasks, to be raised alone; it carries a note of each that says something else.

    Those go to the log with their tracebacks. One that is more than a cancellation comes first.
    """
    first, *others = sorted(_leaves(group), key=lambda error: not isinstance(error, Exception))
    said = {one_line_error(first)}
    for other in others:
        text = one_line_error(other)
        if text not in said:
            first.add_note(f"at the same time: {text}")
            log.error("failed at the same time as %s", type(first).__name__, exc_info=other)
        said.add(text)
    return first


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
