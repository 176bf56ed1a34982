"""Which replica a request goes to: the one with the least under way, among those that may be asked."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from distillkit_builtin.remote.circuit_breaker import Breaker
from distillkit_builtin.remote.results import AttemptError, NoReplicaError, RefusedError
from distillkit_builtin.remote.retries import Budget


@dataclass(slots=True, eq=False)
class Replica:
    """One address of the service."""

    root: str
    breaker: Breaker
    in_flight: int = 0
    lent: int = 0
    """When it was chosen last, counted in choices."""
    last_failure: str = ""


@dataclass(frozen=True, slots=True)
class Loan:
    """A replica for one attempt; hand it to `Replicas.use` without awaiting anything before."""

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
    down_since: float | None = None
    """Since when no replica is healthy; None: one is."""
    _replicas: list[Replica] = field(init=False)
    _loans: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """All are healthy until they show otherwise."""
        self._replicas = [Replica(root, Breaker(self.clock)) for root in self.roots]

    @property
    def down(self) -> int:
        """Replicas whose breaker is not closed."""
        return sum(not replica.breaker.is_closed for replica in self._replicas)

    async def lend(self, budget: Budget, avoid: str | None) -> Loan:
        """A replica, another than `avoid` if there is one; where none may be asked, wait for the first that may.

        Raises:
            NoReplicaError: if none may be asked before the budget is spent.
        """
        while True:
            loan = self._lend_now(avoid)
            if loan is not None:
                return loan
            seconds = min(replica.breaker.opens_in() for replica in self._replicas)
            left = budget.left()
            if left <= 0 or (seconds > left and math.isfinite(seconds)):
                raise NoReplicaError(self._why_none(), seconds if math.isfinite(seconds) else None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, left)):
                    await self._changed.wait()

    def lend_other(self, root: str) -> Loan | None:
        """A healthy replica other than `root`, now or not at all."""
        return self._least_loaded([one for one in self._free() if one.breaker.is_closed and one.root != root])

    @contextmanager
    def use(self, loan: Loan) -> Iterator[None]:
        """One attempt; how the block ends is what the breaker hears."""
        replica, breaker = loan.replica, loan.replica.breaker
        try:
            yield
        except AttemptError as error:
            replica.last_failure = str(error)
            if error.broken:
                breaker.failed(probe=loan.is_probe)
            else:
                breaker.answered()
            if error.retry_after is not None:
                breaker.rest(error.retry_after)
            raise
        except RefusedError:
            breaker.answered()
            raise
        except BaseException:  # cancelled, or an error of ours
            breaker.abandoned(probe=loan.is_probe)
            raise
        else:
            breaker.answered()
        finally:
            replica.in_flight -= 1
            self._notice()

    def _lend_now(self, avoid: str | None) -> Loan | None:
        free = self._free()
        others = [replica for replica in free if replica.root != avoid]
        # One request probes a replica that has cooled down, even while others are healthy: else it never came back.
        probing = [replica for replica in others if not replica.breaker.is_closed]
        return self._least_loaded(probing or others or free)

    def _free(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica.breaker.opens_in() <= 0]

    def _least_loaded(self, among: Sequence[Replica]) -> Loan | None:
        if not among:
            return None
        replica = min(among, key=lambda one: (one.in_flight, one.lent))
        self._loans += 1
        replica.lent = self._loans
        replica.in_flight += 1
        return Loan(replica, replica.breaker.started())

    def _notice(self) -> None:
        if self.down < len(self._replicas):
            self.down_since = None
        elif self.down_since is None:
            self.down_since = self.clock()
        self._changed.set()  # all that wait look again
        self._changed = asyncio.Event()

    def _why_none(self) -> str:
        known = [replica.last_failure or f"{replica.root}: not asked yet" for replica in self._replicas]
        return f"no replica may be asked; their last failures: {'; '.join(known)}"
