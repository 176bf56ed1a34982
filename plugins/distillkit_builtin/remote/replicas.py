"""Which replica a request goes to: the one with the least under way, among those that may be sent one."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from distillkit.context import Notify
from distillkit_builtin.remote.circuit_breaker import FIRST_COOL_DOWN, LONGEST_COOL_DOWN, CircuitBreaker
from distillkit_builtin.remote.results import AttemptError, NoReplicaError, RefusedError
from distillkit_builtin.remote.retries import Budget

PROBES_A_BUDGET = 6
"""At least so often is a replica that fails looked at within `timeouts.retry`, also where that is short."""
TOLD_AFTER = 2.0
"""Seconds without a result after which a replica that is sent no more requests is worth a word."""


@dataclass(slots=True, eq=False)
class Replica:
    """One address of the service."""

    root: str
    breaker: CircuitBreaker
    in_flight: int = 0
    last_leased: int = 0
    """When it was chosen last: the number of that lease."""
    last_failure: str = ""
    failing_since: float | None = None
    """When the first was sent of the attempts that failed since it responded last."""
    is_told: bool = False
    """Whether the user knows that it fails."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A replica for one attempt; give it to `Replicas.use` without awaiting anything before."""

    replica: Replica
    is_probe: bool

    @property
    def root(self) -> str:
        """The replica's address."""
        return self.replica.root


@dataclass(slots=True)
class Replicas:
    """All addresses of one service."""

    roots: Sequence[str]
    clock: Callable[[], float]
    tell: Notify
    """Told once when a replica fails for longer than a moment, and once when it is back."""
    retry_timeout: float
    """`timeouts.retry`, for what is told."""
    down_since: float | None = None
    """Since when no replica is healthy; None: one is."""
    _replicas: list[Replica] = field(init=False)
    _leases: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """All are healthy until they show otherwise."""
        longest = min(LONGEST_COOL_DOWN, max(FIRST_COOL_DOWN, self.retry_timeout / PROBES_A_BUDGET))
        self._replicas = [Replica(root, CircuitBreaker(self.clock, longest)) for root in self.roots]

    @property
    def down(self) -> int:
        """Replicas whose breaker is not closed."""
        return sum(not replica.breaker.is_closed for replica in self._replicas)

    async def lease(self, budget: Budget, avoid: str | None, only: str | None = None) -> Lease:
        """A lease of a replica, other than `avoid` if there is one; if none is available, wait for one.

        `only`: of that one, whatever the others do.

        Raises:
            NoReplicaError: if none is available before the budget is spent.
        """
        while True:
            lease = self._lease_now(avoid, only)
            if lease is not None:
                return lease
            seconds = min(replica.breaker.opens_in() for replica in self._replicas if only in (None, replica.root))
            left = budget.left()
            if left <= 0 or (seconds > left and math.isfinite(seconds)):
                raise NoReplicaError(self._no_replica_reason(), seconds if math.isfinite(seconds) else None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, left)):
                    await self._changed.wait()

    def lease_other(self, root: str) -> Lease | None:
        """A lease of a healthy replica other than `root`; None if no other is available now."""
        return self._least_loaded([each for each in self._free() if each.breaker.is_closed and each.root != root])

    @contextmanager
    def use(self, lease: Lease) -> Iterator[None]:
        """One attempt inside the block; its result is reported to the breaker."""
        replica, breaker, sent = lease.replica, lease.replica.breaker, self.clock()
        try:
            yield
        except AttemptError as error:
            replica.last_failure = str(error)
            if error.broken:
                breaker.failed(probe=lease.is_probe)
                self._failed(replica, sent, error.what)
            else:
                self._responded(replica)
            if error.retry_after is not None:
                breaker.cool_down(error.retry_after)
            raise
        except RefusedError:
            self._responded(replica)
            raise
        except BaseException:  # cancelled, or an error of ours
            breaker.abandoned(probe=lease.is_probe)
            raise
        else:
            self._responded(replica)
        finally:
            replica.in_flight -= 1
            self._notify()

    def _failed(self, replica: Replica, sent: float, what: str) -> None:
        replica.failing_since = sent if replica.failing_since is None else min(sent, replica.failing_since)
        if replica.is_told or replica.breaker.is_closed or self.clock() - replica.failing_since < TOLD_AFTER:
            return
        replica.is_told = True
        elsewhere = ", at the other replicas too" if len(self._replicas) > 1 else ""
        self.tell(
            f"no answer from {replica.root}: {what}; each request is tried again within {self.retry_timeout:g} s "
            f"(timeouts.retry){elsewhere}",
            "warning",
        )

    def _responded(self, replica: Replica) -> None:
        replica.breaker.responded()
        if replica.is_told and replica.failing_since is not None:
            self.tell(f"{replica.root} answers again, after {self.clock() - replica.failing_since:.0f} s")
        replica.failing_since, replica.is_told = None, False

    def _lease_now(self, avoid: str | None, only: str | None) -> Lease | None:
        free = [replica for replica in self._free() if only in (None, replica.root)]
        others = [replica for replica in free if replica.root != avoid]
        # One request probes a replica that has cooled down, even while others are healthy: else it never came back.
        probing = [replica for replica in others if not replica.breaker.is_closed]
        return self._least_loaded(probing or others or free)

    def _free(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica.breaker.opens_in() <= 0]

    def _least_loaded(self, among: Sequence[Replica]) -> Lease | None:
        if not among:
            return None
        replica = min(among, key=lambda each: (each.in_flight, each.last_leased))
        self._leases += 1
        replica.last_leased = self._leases
        replica.in_flight += 1
        return Lease(replica, replica.breaker.started())

    def _notify(self) -> None:
        if self.down < len(self._replicas):
            self.down_since = None
        elif self.down_since is None:
            self.down_since = self.clock()
        self._changed.set()  # all that wait look again
        self._changed = asyncio.Event()

    def _no_replica_reason(self) -> str:
        known = [replica.last_failure or f"{replica.root}: no request yet" for replica in self._replicas]
        return f"no replica is available; their last failures: {'; '.join(known)}"
