"""A peer that says nothing: its host has no power, or the network is cut, and no connection is closed."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from distillkit.errors import RunFailedError
from distillkit.testing import make_context
from distillkit_builtin.local.ranks import heartbeat
from distillkit_builtin.local.ranks.commands import DescribeStudent
from distillkit_builtin.local.ranks.heartbeat import Heartbeat
from distillkit_builtin.local.ranks.worker_pool import WorkerPool


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(heartbeat, "SILENT_TICKS", 4)


class Peers:
    """What was said to them, and who was given up with which reason."""

    def __init__(self) -> None:
        self.said: list[int] = []
        self.given_up: list[tuple[int, str]] = []

    def say(self, peer: int) -> None:
        self.said.append(peer)

    def give_up(self, peer: int, reason: str) -> None:
        self.given_up.append((peer, reason))


@asynccontextmanager
async def beating(beat: Heartbeat, peers: Peers) -> AsyncIterator[None]:
    task = asyncio.create_task(beat.beat(peers.say, peers.give_up))
    try:
        yield
    finally:
        task.cancel()


async def test_a_silent_peer_is_given_up_once_and_one_that_speaks_never() -> None:
    beat, peers = Heartbeat([1, 2]), Peers()
    async with beating(beat, peers):
        while not peers.given_up or peers.said.count(2) < 20:
            beat.heard(2)
            await asyncio.sleep(0.001)
        beat.heard(1)  # too late
        said = peers.said.count(1)
        await asyncio.sleep(0.1)
    assert peers.given_up[0] == (1, "nothing was heard of it for 0 s")
    assert [peer for peer, _ in peers.given_up].count(1) == 1
    assert 0 < peers.said.count(1) == said < 20


async def test_a_process_whose_event_loop_is_busy_is_alive() -> None:
    """As of a plugin that computes there for minutes; nothing is said once the end was said."""
    peers = Peers()
    async with beating(Heartbeat([1]), peers):
        await asyncio.sleep(0)
        until = time.monotonic() + 20
        while len(peers.said) < 5 and time.monotonic() < until:
            time.sleep(0.01)  # the event loop is busy all the while
        assert len(peers.said) >= 5
    await asyncio.sleep(0)
    said = len(peers.said)
    time.sleep(0.05)
    assert len(peers.said) == said


async def test_who_slept_himself_gives_nobody_up() -> None:
    """Ticks are counted, not seconds: a process that was stopped for an hour has counted one."""
    beat, peers = Heartbeat([1]), Peers()
    async with beating(beat, peers):
        await asyncio.sleep(0.015)
        time.sleep(0.2)
        beat.heard(1)
        await asyncio.sleep(0)
        assert peers.given_up == []


class Silent:
    """A group of two whose other rank is on a host that nothing is heard of."""

    count, rank, hosts = 2, 0, ("a", "b")

    def __init__(self) -> None:
        self.over = threading.Event()

    def send(self, rank: int, message: object) -> None:
        """Nothing: it leaves, and arrives nowhere."""

    def receive(self, rank: int) -> object:
        self.over.wait(10)
        raise RuntimeError("closed by the test")

    def abort(self) -> None:
        """Nothing."""


async def test_a_host_that_falls_silent_breaks_the_run_with_its_name() -> None:
    group: Any = Silent()
    pool = WorkerPool(group, make_context())
    result = asyncio.create_task(pool.execute(1, DescribeStudent()))
    with pytest.raises(RunFailedError, match=r"rank 1 of 2 on b is gone, .* whether b ran out of memory or off"):
        await asyncio.wait_for(pool.until_broken(), 5)
    with pytest.raises(RunFailedError, match="rank 1 of 2 on b is gone"):
        await result
    group.over.set()
    await pool.shut_down()
