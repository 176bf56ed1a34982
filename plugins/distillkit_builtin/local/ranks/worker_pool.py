"""Rank 0's handle on the workers: it sends commands to the other ranks, and receives what comes of them."""

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import cast

from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.events import Notice
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.ranks.commands import Command
from distillkit_builtin.local.ranks.heartbeat import Heartbeat
from distillkit_builtin.local.ranks.messages import Alive, Cancel, Done, Execute, Failed, Item, ShutDown, Stopped
from distillkit_builtin.local.ranks.process_group import ProcessGroup

SHUTDOWN_SECONDS = 60.0
"""How long a rank may take to end what it is doing once it is shut down."""
log = logging.getLogger("distillkit")
Results = asyncio.Queue[Item | Done | Failed]


class WorkerPool:
    """Rank 0's connection to all other ranks."""

    def __init__(self, group: ProcessGroup, run: RunContext) -> None:
        """Listen to every rank, each in a thread of its own. To be made in the run's event loop."""
        self.group = group
        self.ranks = range(1, group.count)
        self._run = run
        self._notified: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._results: dict[int, tuple[int, Results]] = {}
        """By number of the command: which rank executes it, and what came of it so far."""
        self._lost: dict[int, RunFailedError] = {}
        self._broken: asyncio.Future[None] = self._loop.create_future()
        self._sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="distillkit-commands")
        self._listeners = [
            threading.Thread(target=self._listen, args=(rank,), daemon=True, name=f"distillkit-rank-{rank}")
            for rank in self.ranks
        ]
        for listener in self._listeners:
            listener.start()
        self._heartbeat = Heartbeat(self.ranks)
        self._beating = asyncio.create_task(self._heartbeat.beat(self._say_alive, self._mark_lost))

    async def stream(self, rank: int, command: Command) -> AsyncIterator[object]:
        """What `rank` streams while it executes the command, which is cancelled when the consumer stops.

        Raises what it raised there, with the rank in its text, or RunFailedError if that process is gone.
        """
        number, results = await self._begin(rank, command)
        try:
            while isinstance(result := await results.get(), Item):
                yield result.value
            if isinstance(result, Failed):
                raise result.error
        except BaseException:
            if rank not in self._lost:
                await self._send(rank, Cancel(number))
            raise
        finally:
            del self._results[number]

    async def execute(self, rank: int, command: Command) -> object:
        """The result of a command that streams nothing. Raises as `stream` does."""
        number, results = await self._begin(rank, command)
        try:
            result = await results.get()
        finally:
            del self._results[number]
        if isinstance(result, Failed):
            raise result.error
        return result.result if isinstance(result, Done) else None

    async def execute_on_each(self, commands: Mapping[int, Command]) -> list[object]:
        """Results of one command a rank, which all execute at the same time. Raises as `stream` does, the first."""
        return list(await asyncio.gather(*(self.execute(rank, command) for rank, command in commands.items())))

    async def execute_on_all(self, command: Command) -> list[object]:
        """Results of the same command from every rank."""
        return await self.execute_on_each(dict.fromkeys(self.ranks, command))

    async def until_broken(self) -> None:
        """Wait until a process is gone. Raises RunFailedError then."""
        await asyncio.shield(self._broken)

    def require_all(self) -> None:
        """Raise RunFailedError if a process is gone."""
        for error in self._lost.values():
            raise error

    async def shut_down(self) -> None:
        """The run has ended: let the other ranks end too, and wait for them."""
        self._beating.cancel()
        shut_down = ShutDown(await asyncio.to_thread(_outcome, self._run.run_dir))
        for rank in self.ranks:
            if rank not in self._lost:
                with suppress(RuntimeError):  # it went just now
                    await self._send(rank, shut_down)
        self._sender.shutdown()
        await asyncio.to_thread(self._join_listeners)

    def _join_listeners(self) -> None:
        """Wait for every rank's last message: Python ends badly while a thread is inside gloo."""
        for listener in self._listeners:
            listener.join(SHUTDOWN_SECONDS)
        if not self._lost:
            self.group.leave()

    async def _begin(self, rank: int, command: Command) -> tuple[int, Results]:
        if rank in self._lost:
            raise self._lost[rank]
        number, results = next(self._numbers), Results()
        self._results[number] = rank, results
        try:
            await self._send(rank, Execute(number, command))
        except RuntimeError as error:
            self._mark_lost(rank, str(error))
        except BaseException:
            del self._results[number]
            raise
        return number, results

    def _say_alive(self, rank: int) -> None:
        """Without waiting: what is sent before may be large."""
        if rank not in self._lost:
            self._sender.submit(self._send_alive, rank)

    def _send_alive(self, rank: int) -> None:
        with suppress(RuntimeError):  # it went just now, which its listener finds
            self.group.send(rank, Alive())

    async def _send(self, rank: int, message: object) -> None:
        await self._loop.run_in_executor(self._sender, self.group.send, rank, message)

    def _listen(self, rank: int) -> None:
        """In a thread, until that process is gone or the run has ended."""
        try:
            messages: list[object] = []
            while Stopped() not in messages:
                messages = cast(list[object], self.group.receive(rank))
                self._loop.call_soon_threadsafe(self._receive_all, rank, messages)
        except RuntimeError as error:  # what gloo raises when a connection ends, and asyncio after its loop has
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._mark_lost, rank, str(error))

    def _receive_all(self, rank: int, messages: Sequence[object]) -> None:
        self._heartbeat.heard(rank)
        for message in messages:
            self._receive(message)

    def _receive(self, message: object) -> None:
        if isinstance(message, Notice):
            if message.message not in self._notified:  # every rank finds the same reasons
                self._notified.add(message.message)
                self._run.tell(message)
        elif isinstance(message, Item | Done | Failed) and message.number in self._results:
            self._results[message.number][1].put_nowait(message)

    def _mark_lost(self, rank: int, reason: str) -> None:
        """Fail every command that a process executes which is gone."""
        if rank in self._lost:
            return
        log.info("rank %d: %s", rank, reason)
        host = self.group.hosts[rank]
        where, machine = ("", "this machine") if host == self.group.hosts[0] else (f" on {host}", host)
        self._lost[rank] = RunFailedError(
            f"rank {rank} of {self.group.count}{where} is gone, without a word: it was killed or crashed; look at what "
            f"it printed, and whether {machine} ran out of memory{'' if not where else ' or off the network'}"
        )
        self.group.abort()
        if not self._broken.done():
            self._broken.set_exception(self._lost[rank])
        for number, (executing, results) in self._results.items():
            if executing == rank:
                results.put_nowait(Failed(number, self._lost[rank]))


def _outcome(run_dir: Path | None) -> Mapping[str, str]:
    """The files that say what the run came to, as far as they are there."""
    files = () if run_dir is None else (run_dir / "summary.json", run_dir / "metrics.jsonl")
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}


async def shared_worker_pool(run: RunContext, device: Device) -> WorkerPool | None:
    """The run's other ranks, once all have joined; None where this process is alone."""
    if run.rank.count == 1:
        return None
    group = await device.run(run.share, ("process group",), lambda: ProcessGroup.join(device.device))
    return run.share(("worker pool",), lambda: WorkerPool(group, run), WorkerPool.shut_down)
