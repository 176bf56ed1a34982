"""Rank 0's side: it gives orders to the other ranks, and hears what comes of them."""

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import cast

from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.ranks.messages import Dismissed, Done, Dropped, Failed, Given, Left, Notice, Order, Piece
from distillkit_builtin.local.ranks.process_group import World

LAST_WORDS_S = 60.0
"""How long a dismissed rank may take to end what it is doing."""
log = logging.getLogger("distillkit")
Answers = asyncio.Queue[Piece | Done | Failed]


class WorkerPool:
    """All ranks but this one."""

    def __init__(self, world: World, run: RunContext) -> None:
        """Listen to every rank, each in a thread of its own. To be made in the run's event loop."""
        self.world = world
        self.ranks = range(1, world.count)
        self._run = run
        self._told: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._answers: dict[int, tuple[int, Answers]] = {}
        self._lost: dict[int, RunFailedError] = {}
        self._broken: asyncio.Future[None] = self._loop.create_future()
        self._sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="distillkit-orders")
        self._listeners = [
            threading.Thread(target=self._listen, args=(rank,), daemon=True, name=f"distillkit-rank-{rank}")
            for rank in self.ranks
        ]
        for listener in self._listeners:
            listener.start()

    async def pieces(self, rank: int, order: Order) -> AsyncIterator[object]:
        """What `rank` hands over while it carries the order out; it stops when nobody wants more.

        Raises what it raised there, saying where, or RunFailedError if that process is gone.
        """
        number, answers = await self._give(rank, order)
        try:
            while isinstance(answer := await answers.get(), Piece):
                yield answer.value
            if isinstance(answer, Failed):
                raise answer.error
        except BaseException:
            if rank not in self._lost:
                await self._send(rank, Dropped(number))
            raise
        finally:
            del self._answers[number]

    async def do(self, rank: int, order: Order) -> object:
        """The result of an order that hands nothing over before. Raises as `pieces` does."""
        number, answers = await self._give(rank, order)
        try:
            answer = await answers.get()
        finally:
            del self._answers[number]
        if isinstance(answer, Failed):
            raise answer.error
        return answer.result if isinstance(answer, Done) else None

    async def each(self, orders: Mapping[int, Order]) -> list[object]:
        """Results of one order a rank, which all carry out at the same time. Raises as `pieces` does, the first."""
        return list(await asyncio.gather(*(self.do(rank, order) for rank, order in orders.items())))

    async def all(self, order: Order) -> list[object]:
        """Results of the same order from every rank."""
        return await self.each(dict.fromkeys(self.ranks, order))

    async def until_broken(self) -> None:
        """Wait until a process is gone. Raises RunFailedError then."""
        await asyncio.shield(self._broken)

    async def dismiss(self) -> None:
        """The run has ended: the others may go."""
        for rank in self.ranks:
            if rank not in self._lost:
                with suppress(RuntimeError):  # it went just now
                    await self._send(rank, Dismissed())
        self._sender.shutdown()
        await asyncio.to_thread(self._part)

    def _part(self) -> None:
        """Wait for everybody's last word: Python ends badly while a thread is inside gloo."""
        for listener in self._listeners:
            listener.join(LAST_WORDS_S)
        if not self._lost:
            self.world.leave()

    async def _give(self, rank: int, order: Order) -> tuple[int, Answers]:
        if rank in self._lost:
            raise self._lost[rank]
        number, answers = next(self._numbers), Answers()
        self._answers[number] = rank, answers
        try:
            await self._send(rank, Given(number, order))
        except RuntimeError as error:
            self._lose(rank, str(error))
        except BaseException:
            del self._answers[number]
            raise
        return number, answers

    async def _send(self, rank: int, message: object) -> None:
        await self._loop.run_in_executor(self._sender, self.world.send, rank, message)

    def _listen(self, rank: int) -> None:
        """In a thread, until that process is gone or the run has ended."""
        try:
            said: list[object] = []
            while Left() not in said:
                said = cast(list[object], self.world.receive(rank))
                self._loop.call_soon_threadsafe(self._hear_all, said)
        except RuntimeError as error:  # what gloo raises when a connection ends, and asyncio after its loop has
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._lose, rank, str(error))

    def _hear_all(self, said: Sequence[object]) -> None:
        for message in said:
            self._hear(message)

    def _hear(self, message: object) -> None:
        if isinstance(message, Notice):
            if message.text not in self._told:  # every rank meets the same reasons
                self._told.add(message.text)
                self._run.notify(message.text)
        elif isinstance(message, Piece | Done | Failed) and message.number in self._answers:
            self._answers[message.number][1].put_nowait(message)

    def _lose(self, rank: int, reason: str) -> None:
        """Whoever waits for a process that is gone hears so."""
        log.info("rank %d: %s", rank, reason)
        self._lost[rank] = RunFailedError(
            f"rank {rank} of {self.world.count} is gone, without a word: it was killed or crashed; look at what it "
            "printed, and whether this machine ran out of memory"
        )
        self.world.abort()
        if not self._broken.done():
            self._broken.set_exception(self._lost[rank])
        for number, (whose, answers) in self._answers.items():
            if whose == rank:
                answers.put_nowait(Failed(number, self._lost[rank]))


async def shared_crew(run: RunContext, device: Device) -> WorkerPool | None:
    """The run's other ranks, once they are all there; None where this process is alone."""
    if run.rank.count == 1:
        return None
    world = await device.run(run.share, ("world",), lambda: World.join(device.device))
    return run.share(("crew",), lambda: WorkerPool(world, run), WorkerPool.dismiss)


async def merged(streams: Iterable[AsyncIterator[object]]) -> AsyncIterator[object]:
    """What several streams yield, as it comes. When one raises, or nobody wants more, all end."""
    queue: asyncio.Queue[object] = asyncio.Queue()
    ended = object()

    async def drain(stream: AsyncIterator[object]) -> None:
        try:
            async for value in stream:
                queue.put_nowait(value)
        finally:
            queue.put_nowait(ended)

    tasks = [asyncio.create_task(drain(stream)) for stream in streams]
    try:
        left = len(tasks)
        while left:
            value = await queue.get()
            if value is not ended:
                yield value
                continue
            left -= 1
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
