"""The Tinker SDK: imported when it is first used, and one way to wait for what its calls return, in 0.25 to 0.38.

Since 0.36 creators of clients give futures, before that the clients themselves (and block meanwhile); `sample` gives a
plain concurrent future in 0.25. Nothing here calls its `*_async` methods, which 0.38 warns of.

The SDK waits for a server far longer than a run should: 360 s for a closed port, for ever for a future of a server that
is gone. So each wait has a limit of ours; what is waited for is cancelled then, and nothing is sent a second time.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from distillkit.errors import RunFailedError
from distillkit.files.redaction import redact
from distillkit_builtin.remote.blocking_calls import start_in_thread
from distillkit_builtin.tinker.sdk_errors import run_failed

TELEMETRY = "TINKER_TELEMETRY"
"""What the SDK sends to the server, unless this says no: exceptions, and of failed futures the request's headers."""
LIBRARIES = frozenset({"tinker", "transformers"})


class Redacting(logging.Filter):
    """Takes keys out of what asyncio logs of the SDK's tasks.

    A request that is given up may fail at that moment. Nobody hears of its exception then, and asyncio logs it, with
    the key if the server repeated that: also once the run, whose own log is redacted, has ended.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, redacted."""
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info:
            record.exc_text, record.exc_info = redact(logging.Formatter().formatException(record.exc_info)), None
        return True


REDACTING = Redacting()


def load_sdk() -> Any:  # noqa: ANN401 - its types differ between the versions
    """The module `tinker`. Its telemetry, which may hold the key, is off unless the user's environment sets it."""
    os.environ.setdefault(TELEMETRY, "0")
    logging.getLogger("asyncio").addFilter(REDACTING)  # once, however often this is called
    import tinker

    return tinker


def retry_config(seconds: float) -> Any:  # noqa: ANN401 - the SDK's RetryConfig
    """How the SDK tries sampling again: without progress for no longer than we wait for a request, not for two hours.

    Nothing of ours tries again on top of it.
    """
    from tinker.lib.retry_handler import RetryConfig

    return RetryConfig(progress_timeout=seconds)


@contextmanager
def unlogged_refusals() -> Iterator[None]:
    """Keep the SDK from logging as an error that a server refuses what a probe only tries."""

    def no_record(record: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("tinker.lib.retry_handler")
    log.addFilter(no_record)
    try:
        yield
    finally:
        log.removeFilter(no_record)


def sdk_version() -> str:
    """The installed SDK's version; empty where there is none."""
    try:
        return version("tinker")
    except PackageNotFoundError:
        return ""


def missing_extra(who: str) -> str | None:
    """One line that says what to install, or None."""
    found = find_spec("tinker")
    return None if found is not None else f"{who} needs the Tinker SDK: pip install 'distillkit[tinker]'"


async def got(pending: Any, seconds: float) -> Any:  # noqa: ANN401 - the SDK's future, and its result
    """The result of a future of the SDK, of either kind, or what is no future as it is.

    Raises:
        TimeoutError: after `seconds`; what was waited for is cancelled, as far as the SDK cancels it.
    """
    future = pending.future() if hasattr(pending, "future") else pending
    if not hasattr(future, "add_done_callback"):
        return future
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(future)


async def sdk_call(what: str, seconds: float, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - the SDK's
    """The result of a call of the SDK, which may block itself: it is made in a thread of its own.

    Raises:
        RunFailedError: that says `what` was done, if it failed or had no result within `seconds`.
    """

    async def result() -> Any:  # noqa: ANN401 - the SDK's
        return await got(await start_in_thread(call, f"tinker: {what}"), seconds)

    try:
        async with asyncio.timeout(seconds) as limit:
            return await result()
    except TimeoutError as error:
        if not limit.expired():
            raise run_failed(what, error) from error
        raise RunFailedError(f"{what}: no response within {seconds:g} s") from error
    except RunFailedError:
        raise
    except Exception as error:
        raise run_failed(what, error) from error
