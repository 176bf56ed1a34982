"""The event loop of a run's training clients: a thread of its own, which ends with the run.

The SDK has one loop for the whole process, in a thread that nothing ends. A client that is not closed, or whose request
hangs, goes on there: it sends a heartbeat every ten seconds to the end of the process, and once nobody answers it
writes warnings into the terminal, or the notebook. So the clients of a run get a loop that is the run's. Other clients
of the process, such as a user's own in the same notebook, stay on the SDK's.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

CANCEL_SECONDS = 5.0
"""What is cancelled may take this long to end; then its loop is stopped all the same."""


class _LoopOfThread(threading.local):
    """The loop on which clients work that the current thread makes; None: the SDK's own."""

    chosen: "ClientLoop | None" = None


_OF_THREAD = _LoopOfThread()
_INSTALLING = threading.Lock()


class ClientLoop:
    """A loop in a daemon thread, started by the first client that requests it."""

    def __init__(self) -> None:
        """No thread is started before the first client requests the loop."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = False

    @contextlib.contextmanager
    def chosen(self) -> Iterator[None]:
        """Clients that this thread makes inside the block work on this loop."""
        _install()
        before, _OF_THREAD.chosen = _OF_THREAD.chosen, self
        try:
            yield
        finally:
            _OF_THREAD.chosen = before

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The running loop. Raises RuntimeError for a client that is made when the run has ended."""
        with self._lock:
            if self._ended:
                raise RuntimeError("the run has ended")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="fireworks: clients", daemon=True)
                self._thread.start()
            return self._loop

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop, if there is one. Blocking, for at most `CANCEL_SECONDS`."""
        if self._loop is None or self._loop.is_closed():
            work.close()
            return
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(work, self._loop).result(CANCEL_SECONDS)

    def cancel(self) -> None:
        """Cancel all that clients wait for, and let no further client begin. Blocking, for at most `CANCEL_SECONDS`.

        Threads that wait for a client's result get a `concurrent.futures.CancelledError`.
        """
        with self._lock:
            self._ended = True
        self.run(_cancel_all())

    def close(self) -> None:
        """End loop and thread. Blocking; clients are to be closed before, since that needs the loop."""
        self.cancel()
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or loop.is_closed():
            return
        self.run(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CANCEL_SECONDS)
        if not thread.is_alive():
            loop.close()


async def _cancel_all() -> None:
    """Cancel every other task of the running loop, and wait for their ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _SharedOrChosen:
    """Stands where the SDK looks for its one loop: the current thread's own comes first."""

    def __init__(self, shared: object) -> None:
        self._shared = shared

    def get_loop(self) -> asyncio.AbstractEventLoop:
        chosen = _OF_THREAD.chosen
        loop: asyncio.AbstractEventLoop = self._shared.get_loop() if chosen is None else chosen.get_loop()  # type: ignore[attr-defined]  # the SDK's singleton
        return loop

    def __getattr__(self, name: str) -> object:
        return getattr(self._shared, name)


def _install() -> None:
    from fireworks.training.sdk._core.lib import internal_client_holder as holder

    with _INSTALLING:
        shared = holder._internal_client_holder_thread_singleton
        if not isinstance(shared, _SharedOrChosen):
            holder._internal_client_holder_thread_singleton = _SharedOrChosen(shared)  # type: ignore[assignment]
