"""One request: through the queue, to a replica, perhaps to a second one, and again if need be."""

from collections.abc import Callable
from dataclasses import dataclass, field

from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.connection import Connection
from distillkit_builtin.remote.hedging import Hedging, race
from distillkit_builtin.remote.replicas import Lease, Replicas
from distillkit_builtin.remote.results import AttemptError, Result
from distillkit_builtin.remote.retries import Budget


@dataclass(slots=True)
class Counters:
    """Counts of retries, overloads and hedges since the metrics were read last."""

    retries: int = 0
    overloaded: int = 0
    hedged: int = 0


@dataclass(frozen=True, slots=True)
class SharedState:
    """The connection, window and replicas that all requests of one `ServiceClient` share."""

    connection: Connection
    admission: Admission
    replicas: Replicas
    hedging: Hedging | None
    counters: Counters
    clock: Callable[[], float]


@dataclass(slots=True)
class Request:
    """One request over all its attempts."""

    shared: SharedState
    path: str
    body: bytes
    budget: Budget
    only: str | None = None
    """The one replica that it may go to; None: any."""
    ticket: int = field(init=False)
    came_at: float = field(init=False)
    last_root: str | None = None
    """Where the last attempt went: the next one goes elsewhere if it can."""

    def __post_init__(self) -> None:
        """Take a ticket of the admission queue."""
        self.ticket = self.shared.admission.ticket()
        self.came_at = self.shared.clock()

    async def once(self) -> Result:
        """One attempt, inside the window.

        Raises:
            RefusedError, AttemptError, NoReplicaError: what came of it.
        """
        shared = self.shared
        async with shared.admission.slot(self.ticket):
            self._begin_budget()
            lease = await shared.replicas.lease(self.budget, self.last_root, self.only)
            self.last_root, sent = lease.root, shared.clock()
            if shared.hedging is None or self.only is not None:
                result = await self._send(lease)
            else:
                result = await race(self._send(lease), self._send_hedge, shared.hedging.after)
            shared.admission.window.succeeded(sent, full=shared.admission.is_full)
            return result

    def _begin_budget(self) -> None:
        """Waiting in the queue is free while the service responds, and is not while all of it is down.

        Otherwise a long queue would take `timeouts.retry` again and again until its last request has failed.
        """
        now, down_since = self.shared.clock(), self.shared.replicas.down_since
        self.budget.begin(now if down_since is None else max(self.came_at, down_since))

    async def _send(self, lease: Lease) -> Result:
        sent = self.shared.clock()
        try:
            with self.shared.replicas.use(lease):
                return await self.shared.connection.send("POST", lease.root, self.path, self.body)
        except AttemptError as error:
            if error.overload:
                self.shared.counters.overloaded += 1
                self.shared.admission.window.overloaded(sent)
            raise

    async def _send_hedge(self) -> Result | None:
        shared = self.shared
        if shared.hedging is None or self.last_root is None or not shared.hedging.may_start(shared.admission.in_use):
            return None
        lease = shared.replicas.lease_other(self.last_root)
        if lease is None:
            return None
        shared.counters.hedged += 1
        with shared.hedging.counted():
            return await self._send(lease)
