"""The asynchronous side of a service: operations run once, in order, in one thread; their results are fetched later."""

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from pydantic import JsonValue

from distillkit_loopback.training.faults import Fails, NeverDone
from distillkit_loopback.transport.routes import not_found

log = logging.getLogger(__name__)
KEPT = 1024
"""Results; the oldest go first."""
Result = JsonValue | bytes
"""What becomes of an operation, as it is sent; None: nothing yet."""


@dataclass(slots=True)
class _Future:
    owner: str
    result: Result = None


class Futures:
    """The operations under way and their results, by request id."""

    def __init__(self) -> None:
        """No operation is known yet."""
        self._changed = threading.Condition()
        self._futures: OrderedDict[str, _Future] = OrderedDict()
        self._numbers = count(1)
        self._closed = False

    def make(self, owner: str) -> str:
        """A new id, whose result is not there yet; `owner` is what it goes with: a trainer job, a session."""
        with self._changed:
            request_id = f"request-{next(self._numbers)}"
            self._futures[request_id] = _Future(owner)
            while len(self._futures) > KEPT:
                self._futures.popitem(last=False)
            return request_id

    def finish(self, request_id: str, result: Result) -> None:
        """Set the result; nothing happens if the owner is gone."""
        with self._changed:
            if request_id in self._futures:
                self._futures[request_id].result = result
            self._changed.notify_all()

    def drop(self, owner: str) -> None:
        """Forget the futures of an owner that is gone."""
        with self._changed:
            for request_id in [name for name, future in self._futures.items() if future.owner == owner]:
                del self._futures[request_id]
            self._changed.notify_all()

    def is_known(self, request_id: str) -> bool:
        """Whether the owner is still there, and the result may be set."""
        with self._changed:
            return request_id in self._futures

    def unfinished(self) -> int:
        """How many operations have no result yet."""
        with self._changed:
            return sum(future.result is None for future in self._futures.values())

    def wait(self, request_id: str, seconds: float) -> Result:
        """The result, or None if it takes longer. Raises Refused for an id that is not known (any more)."""

        def settled() -> bool:
            future = self._futures.get(request_id)
            return self._closed or future is None or future.result is not None

        with self._changed:
            self._changed.wait_for(settled, seconds)
            if request_id not in self._futures:
                raise not_found(f"future {request_id}")
            return self._futures[request_id].result

    def close(self) -> None:
        """Wake every request that waits for a result."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Operation:
    """Work whose result goes into a future."""

    request_id: str
    work: Callable[[], Result]
    fault: object
    """`Fails` and `NeverDone` are for the operation; any other one is not, and None is no fault."""

    def run(self, futures: Futures) -> None:
        """Do it; an exception is a failed future, as the real service has it."""
        if isinstance(self.fault, NeverDone) or not futures.is_known(self.request_id):
            return
        if isinstance(self.fault, Fails):
            futures.finish(self.request_id, failed(self.fault.message, self.fault.category))
            return
        try:
            result = self.work()
        except Exception as error:  # the client gets it, and the worker goes on
            log.info("operation %s failed", self.request_id, exc_info=True)
            result = failed(f"{type(error).__name__}: {error}", "user")
        futures.finish(self.request_id, result)


def failed(message: str, category: str) -> JsonValue:
    """The result of an operation that did not work."""
    return {"error": message, "category": category}


class Worker:
    """One daemon thread: a service computes one operation at a time."""

    def __init__(self, futures: Futures) -> None:
        """Start the thread; results go into `futures`."""
        self._futures = futures
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="loopback-worker", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> None:
        """Run it after what was submitted before."""
        self._queue.put(operation)

    def close(self) -> None:
        """End after the operation that runs now; what waits is never begun."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (operation := self._queue.get()) is not None and not self._closed:
            operation.run(self._futures)


class InOrder:
    """The operations of one model: each once, however often it is sent; by `seq_id`, in whatever order they arrive."""

    def __init__(self, owner: str, futures: Futures, worker: Worker) -> None:
        """SDKs count from 1. `owner` is what its futures go with."""
        self._owner = owner
        self._futures = futures
        self._worker = worker
        self._lock = threading.Lock()
        self._next = 1
        self._request_ids: dict[int, str] = {}
        self._waiting: dict[int, Operation | None] = {}

    @property
    def begun(self) -> bool:
        """Whether any operation came, also one that was refused."""
        with self._lock:
            return self._next > 1 or bool(self._waiting)

    def known(self, seq_id: int) -> str | None:
        """The request id of an operation that came before; None: it did not."""
        with self._lock:
            return self._request_ids.get(seq_id)

    def add(self, seq_id: int, work: Callable[[], Result], fault: object) -> str:
        """The request id of operation `seq_id`, which runs after all before it; one that was skipped runs at once."""
        with self._lock:
            if seq_id not in self._request_ids:
                self._request_ids[seq_id] = request_id = self._futures.make(self._owner)
                operation = Operation(request_id, work, fault)
                if seq_id < self._next:
                    self._worker.submit(operation)
                else:
                    self._waiting[seq_id] = operation
                    self._advance()
            return self._request_ids[seq_id]

    def skip(self, seq_id: int) -> None:
        """Do not wait for operation `seq_id`: it was refused, and will not come again."""
        with self._lock:
            if seq_id not in self._request_ids:
                self._waiting[seq_id] = None
                self._advance()

    def _advance(self) -> None:
        while self._next in self._waiting:
            operation = self._waiting.pop(self._next)
            self._next += 1
            if operation is not None:
                self._worker.submit(operation)
