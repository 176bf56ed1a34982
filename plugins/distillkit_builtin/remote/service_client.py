"""A client of a service over HTTP: every request ends in a result or in one of two exceptions."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import httpx
from pydantic import JsonValue
from pydantic_core import to_json

from distillkit.context import Notify, log_level
from distillkit.events import NoticeKind
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.aimd_window import AimdWindow
from distillkit_builtin.remote.connection import Connection
from distillkit_builtin.remote.hedging import Hedging
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.replicas import Replicas
from distillkit_builtin.remote.request import Counters, Request, SharedState
from distillkit_builtin.remote.results import AttemptError, RefusedError, Result
from distillkit_builtin.remote.retries import Budget, backoff, backoff_with_retry_after, with_retries

log = logging.getLogger("distillkit")


def loop_time() -> float:
    """Seconds on the running event loop's clock."""
    return asyncio.get_running_loop().time()


def log_notice(message: str, kind: NoticeKind = "note") -> None:
    """Where nobody listens."""
    log.log(log_level(kind), "%s", message)


@dataclass(frozen=True, slots=True)
class ServiceClient:
    """All replicas of one service, used from one event loop. Make one a teacher: each has a window of its own."""

    name: str
    roots: tuple[str, ...]
    retry_timeout: float
    _shared: SharedState

    @classmethod
    def open(
        cls,
        options: RemoteOptions,
        name: str,
        *,
        tell: Notify = log_notice,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> "ServiceClient":
        """A client that connects at its first request.

        Args:
            options: where the service is, timeouts and limits.
            name: what metrics call it: `concurrency/<name>/window`.
            tell: tells the user that a replica does not answer, and that it does again; once each.
            transport: instead of the network, for tests.

        Raises:
            InputError: if the key's variable is not set, or the CA bundle cannot be read.
        """
        clock: Callable[[], float] = loop_time
        hedge_after = options.timeouts.hedge_after
        shared = SharedState(
            connection=Connection.open(options, clock, transport),
            admission=Admission(AimdWindow(options.concurrency.initial, options.concurrency.max, clock)),
            replicas=Replicas(options.roots, clock, tell, options.timeouts.retry),
            hedging=None if hedge_after is None else Hedging(hedge_after),
            counters=Counters(),
            clock=clock,
        )
        return cls(name, options.roots, options.timeouts.retry, shared)

    async def post(self, path: str, payload: Mapping[str, JsonValue], *, only: str | None = None) -> Result:
        """POST to `path` (with its /v1) of the least loaded healthy replica, in the window, with retries and hedging.

        `only`: to that replica, without hedging, whatever the others do.

        Raises:
            ValueError: for an `only` that is not in `roots`.
            RefusedError: the service refused.
            UnansweredError: no result within `timeouts.retry`. The last attempt may take
                `timeouts.request` beyond that.
        """
        root = None if only is None else self._known(only)
        request = Request(self._shared, path, to_json(payload), self._budget(), root)
        return await with_retries(request.once, request.budget, backoff, self._count_retry)

    async def post_to(self, root: str, path: str, payload: Mapping[str, JsonValue]) -> Result:
        """POST to one replica, such as to load an adapter; outside the window, with retries.

        The result may be plain text or None. Circuit breakers neither stop it nor count it: whether a replica can load
        an adapter says nothing of whether it works. Raises as `post`, and ValueError for a root that is not in `roots`.
        """
        send = partial(self._shared.connection.send, "POST", self._known(root), path, to_json(payload), lenient=True)
        return await self._control(send)

    async def get_from(self, root: str, path: str, *, timeout: float | None = None) -> Result:
        """GET from one replica, as `post_to`; `timeout`: seconds for one attempt, None: `timeouts.request`."""
        send = partial(self._shared.connection.send, "GET", self._known(root), path, timeout=timeout, lenient=True)
        return await self._control(send)

    async def get_once(self, root: str, path: str, timeout: float) -> Result | None:
        """GET from one replica in one attempt of `timeout` seconds, for what a run can do without; None: no result."""
        try:
            return await self._shared.connection.send("GET", self._known(root), path, timeout=timeout, lenient=True)
        except (RefusedError, AttemptError):
            return None

    def metrics(self) -> Mapping[str, float]:
        """Since the last call, as `concurrency/<name>/...`.

        `window` (requests at once, now), `inflight` (the most of them that held a slot, hedges apart), `retries`,
        `overloaded` (attempts that met a 429, 503, 504, 529 or no response in time), `hedged`, `replicas_down` (now).
        """
        shared, counters = self._shared, self._shared.counters
        values = {
            "window": shared.admission.window.size,
            "inflight": shared.admission.take_peak(),
            "retries": counters.retries,
            "overloaded": counters.overloaded,
            "hedged": counters.hedged,
            "replicas_down": shared.replicas.down,
        }
        counters.retries = counters.overloaded = counters.hedged = 0
        return {f"concurrency/{self.name}/{name}": float(value) for name, value in values.items()}

    async def close(self) -> None:
        """Close all connections."""
        await self._shared.connection.client.aclose()

    async def _control(self, send: Callable[[], Awaitable[Result]]) -> Result:
        budget = self._budget()
        budget.begin(loop_time())
        return await with_retries(send, budget, backoff_with_retry_after, self._count_retry)

    def _budget(self) -> Budget:
        return Budget(self.retry_timeout, loop_time)

    def _count_retry(self) -> None:
        self._shared.counters.retries += 1

    def _known(self, root: str) -> str:
        if root not in self.roots:
            raise ValueError(f"{root} is not a replica of {self.name}: {', '.join(self.roots)}")
        return root
