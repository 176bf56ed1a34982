"""One request on its way: through the line, to a replica, perhaps to a second one, and again if need be."""

from collections.abc import Callable
from dataclasses import dataclass, field

from distillkit_builtin.remote.admission import Gate
from distillkit_builtin.remote.connection import Connection
from distillkit_builtin.remote.hedging import Hedging, race
from distillkit_builtin.remote.replicas import Loan, Replicas
from distillkit_builtin.remote.results import Answer, AttemptError
from distillkit_builtin.remote.retries import Budget


@dataclass(slots=True)
class Tally:
    """What happened since the last look."""

    retries: int = 0
    overloaded: int = 0
    hedged: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """What all requests of one `Remote` share."""

    connection: Connection
    gate: Gate
    replicas: Replicas
    hedging: Hedging | None
    tally: Tally
    clock: Callable[[], float]


@dataclass(slots=True)
class Posting:
    """One request over all its attempts."""

    parts: Parts
    path: str
    body: bytes
    budget: Budget
    place: int = field(init=False)
    came_at: float = field(init=False)
    last_root: str | None = None
    """Where the last attempt went: the next one goes elsewhere if it can."""

    def __post_init__(self) -> None:
        """Get in line."""
        self.place = self.parts.gate.place()
        self.came_at = self.parts.clock()

    async def once(self) -> Answer:
        """One attempt, inside the window.

        Raises:
            RefusedError, AttemptError, NoReplicaError: what came of it.
        """
        parts = self.parts
        async with parts.gate.slot(self.place):
            self._begin_budget()
            loan = await parts.replicas.lend(self.budget, self.last_root)
            self.last_root, sent = loan.root, parts.clock()
            if parts.hedging is None:
                answer = await self._ask(loan)
            else:
                answer = await race(self._ask(loan), self._ask_another, parts.hedging.after)
            parts.gate.window.succeeded(sent, full=parts.gate.is_full)
            return answer

    def _begin_budget(self) -> None:
        """Waiting in line is free while the service answers, and is not while all of it is down.

        Otherwise a long line would take `timeouts.retry` again and again until its last request has failed.
        """
        now, down_since = self.parts.clock(), self.parts.replicas.down_since
        self.budget.begin(now if down_since is None else max(self.came_at, down_since))

    async def _ask(self, loan: Loan) -> Answer:
        sent = self.parts.clock()
        try:
            with self.parts.replicas.use(loan):
                return await self.parts.connection.ask("POST", loan.root, self.path, self.body)
        except AttemptError as error:
            if error.overload:
                self.parts.tally.overloaded += 1
                self.parts.gate.window.overloaded(sent)
            raise

    async def _ask_another(self) -> Answer | None:
        parts = self.parts
        if parts.hedging is None or self.last_root is None or not parts.hedging.may_start(parts.gate.in_use):
            return None
        loan = parts.replicas.lend_other(self.last_root)
        if loan is None:
            return None
        parts.tally.hedged += 1
        with parts.hedging.counted():
            return await self._ask(loan)
