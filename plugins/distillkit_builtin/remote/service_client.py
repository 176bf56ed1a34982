"""A service over HTTP, as a scorer or sampler asks it: every request ends in an answer or in one of two exceptions."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import httpx
from pydantic import JsonValue
from pydantic_core import to_json

from distillkit_builtin.remote.admission import Gate
from distillkit_builtin.remote.aimd_window import AimdWindow
from distillkit_builtin.remote.connection import Connection
from distillkit_builtin.remote.hedging import Hedging
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.replicas import Replicas
from distillkit_builtin.remote.request import Parts, Posting, Tally
from distillkit_builtin.remote.results import Answer
from distillkit_builtin.remote.retries import Budget, backed_off, backed_off_as_told, persist


def loop_time() -> float:
    """Seconds on the running event loop's clock."""
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class Remote:
    """All replicas of one service, asked from one event loop. Make one a teacher: each has a window of its own."""

    name: str
    roots: tuple[str, ...]
    retry_timeout: float
    _parts: Parts

    @classmethod
    def open(cls, options: RemoteOptions, name: str, *, transport: httpx.AsyncBaseTransport | None = None) -> "Remote":
        """Connect when first asked.

        Args:
            options: where the service is, and how it is asked.
            name: what metrics call it: `concurrency/<name>/window`.
            transport: instead of the network, for tests.

        Raises:
            InputError: if the key's variable is not set, or the CA bundle cannot be read.
        """
        clock: Callable[[], float] = loop_time
        hedge_after = options.timeouts.hedge_after
        parts = Parts(
            connection=Connection.open(options, clock, transport),
            gate=Gate(AimdWindow(options.concurrency.initial, options.concurrency.max, clock)),
            replicas=Replicas(options.roots, clock),
            hedging=None if hedge_after is None else Hedging(hedge_after),
            tally=Tally(),
            clock=clock,
        )
        return cls(name, options.roots, options.timeouts.retry, parts)

    async def post(self, path: str, payload: Mapping[str, JsonValue]) -> Answer:
        """Ask the least loaded healthy replica for `path` (with its /v1); inside the window, with retries and hedging.

        Raises:
            RefusedError: the service said no.
            UnansweredError: no good answer within `timeouts.retry`. The attempt that was the last may take
                `timeouts.request` beyond that.
        """
        posting = Posting(self._parts, path, to_json(payload), self._budget())
        return await persist(posting.once, posting.budget, backed_off, self._count_retry)

    async def post_to(self, root: str, path: str, payload: Mapping[str, JsonValue]) -> Answer:
        """Tell one replica something, such as to load an adapter; outside the window, with retries.

        The answer may be plain text or None. Breakers neither stop it nor hear of it: whether a replica can load an
        adapter says nothing of whether it answers. Raises as `post`, and ValueError for a root that is none of ours.
        """
        ask = partial(self._parts.connection.ask, "POST", self._known(root), path, to_json(payload), lenient=True)
        return await self._control(ask)

    async def get_from(self, root: str, path: str, *, timeout: float | None = None) -> Answer:
        """Ask one replica for something, as `post_to`; `timeout`: seconds for one attempt, None: `timeouts.request`."""
        ask = partial(self._parts.connection.ask, "GET", self._known(root), path, timeout=timeout, lenient=True)
        return await self._control(ask)

    def metrics(self) -> Mapping[str, float]:
        """Since the last call, as `concurrency/<name>/...`.

        `window` (requests at once, now), `inflight` (the most of them that held a slot, hedges apart), `retries`,
        `overloaded` (attempts that met a 429, 503, 504, 529 or no answer in time), `hedged`, `replicas_down` (now).
        """
        parts, tally = self._parts, self._parts.tally
        values = {
            "window": parts.gate.window.size,
            "inflight": parts.gate.take_peak(),
            "retries": tally.retries,
            "overloaded": tally.overloaded,
            "hedged": tally.hedged,
            "replicas_down": parts.replicas.down,
        }
        tally.retries = tally.overloaded = tally.hedged = 0
        return {f"concurrency/{self.name}/{name}": float(value) for name, value in values.items()}

    async def close(self) -> None:
        """Let go of all connections."""
        await self._parts.connection.client.aclose()

    async def _control(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        budget = self._budget()
        budget.begin(loop_time())
        return await persist(ask, budget, backed_off_as_told, self._count_retry)

    def _budget(self) -> Budget:
        return Budget(self.retry_timeout, loop_time)

    def _count_retry(self) -> None:
        self._parts.tally.retries += 1

    def _known(self, root: str) -> str:
        if root not in self.roots:
            raise ValueError(f"{root} is no replica of {self.name}: {', '.join(self.roots)}")
        return root
