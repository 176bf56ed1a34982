"""What every rank but 0 does: it carries out rank 0's orders until the run has ended."""

import asyncio
import logging
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.events import Plan
from distillkit_builtin.local.device import shared_device
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.live_teacher import LiveLocalTeacher
from distillkit_builtin.local.ranks.messages import (
    Dismissed,
    Done,
    Dropped,
    Failed,
    Given,
    Left,
    Notice,
    Piece,
    portable,
)
from distillkit_builtin.local.ranks.process_group import World

if TYPE_CHECKING:
    from distillkit_builtin.local.student import LocalStudent

log = logging.getLogger("distillkit")


@dataclass(slots=True)
class Post:
    """What this rank holds."""

    run: RunContext
    student: "LocalStudent"
    world: World
    inbox: "asyncio.Queue[object]"
    """What rank 0 says, and an exception where nothing can be said to it or heard of it any more."""
    pupil: LiveLocalStudent | None = None
    teachers: dict[str, LiveLocalTeacher] = field(default_factory=dict)
    _silent: bool = False
    _unsent: deque[object] = field(default_factory=deque)
    _sender: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "distillkit-answers"))

    def context(self, plan: Plan | None) -> RunContext:
        """The run as what is opened here sees it."""
        return replace(self.run, plan=plan, notify=self.notify)

    def open_pupil(self) -> LiveLocalStudent:
        """The student, which rank 0 had opened."""
        if self.pupil is None:
            raise RuntimeError("an order about the student came before it was opened")
        return self.pupil

    def model(self, teacher: str | None) -> LiveLocalStudent | LiveLocalTeacher:
        """The student, or a teacher by name."""
        return self.open_pupil() if teacher is None else self.teachers[teacher]

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Rank 0 meets the same and says it itself."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def notify(self, text: str) -> None:
        """Tell the user, through rank 0."""
        if not self._silent:
            self.say(Notice(f"rank {self.world.rank}: {text}"))

    def say(self, message: object) -> None:
        """Send to rank 0, in the order of the calls; what is said while something is being sent goes together."""
        self._unsent.append(message)
        sent = self._sender.submit(self._send)
        sent.add_done_callback(partial(_heed, self.inbox, asyncio.get_running_loop()))

    def _send(self) -> None:
        """In the sender's thread."""
        said = [self._unsent.popleft() for _ in range(len(self._unsent))]
        if said:
            self.world.send(0, said)

    async def carry_out(self, given: Given) -> None:
        """Do it, and answer."""
        try:
            result = await given.order.carry_out(self, lambda piece: self.say(Piece(given.number, piece)))
        except Exception as error:
            log.debug("rank %d: %s", self.world.rank, type(given.order).__name__, exc_info=True)
            self.say(Failed(given.number, portable(error, self.world.rank)))
        else:
            self.say(Done(given.number, result))

    def close(self) -> None:
        """Nothing more is said."""
        self._sender.shutdown()


async def serve(run: RunContext, student: "LocalStudent") -> None:
    """Meet the other ranks, and do as rank 0 says until it is done. Raises RunFailedError if it is gone before."""
    device = shared_device(run, student.device)
    with _signals(signal.SIG_DFL):  # until all are there, nothing but the end of this process would end its waiting
        world = await device.run(World.join, device.device)
    inbox: asyncio.Queue[object] = asyncio.Queue()
    post = Post(run, student, world, inbox)
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(world, loop, inbox), daemon=True, name="distillkit-rank-0").start()
    tasks: dict[int, asyncio.Task[None]] = {}
    with _signals(signal.SIG_IGN):  # they reach every rank; what they mean is for rank 0 to say
        try:
            while not isinstance(message := await inbox.get(), Dismissed):
                if isinstance(message, Given):
                    tasks[message.number] = asyncio.create_task(post.carry_out(message))
                    tasks[message.number].add_done_callback(partial(_forget, tasks, message.number))
                elif isinstance(message, Dropped) and message.number in tasks:
                    tasks[message.number].cancel()
                elif isinstance(message, BaseException):
                    raise RunFailedError(f"rank 0 is gone, or cannot be told something: {message}") from message
        finally:
            left = list(tasks.values())
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            post.say(Left())
            post.close()
            world.leave()


def _forget(tasks: "dict[int, asyncio.Task[None]]", number: int, task: "asyncio.Task[None]") -> None:
    del tasks[number]


def _heed(inbox: "asyncio.Queue[object]", loop: asyncio.AbstractEventLoop, sent: "Future[None]") -> None:
    """In the sender's thread: what could not be sent ends this rank, since rank 0 would wait for it for ever."""
    if not sent.cancelled() and (error := sent.exception()) is not None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(inbox.put_nowait, error)


def _listen(world: World, loop: asyncio.AbstractEventLoop, inbox: "asyncio.Queue[object]") -> None:
    """In a thread, until rank 0 is done or gone."""
    message: object = None
    while not isinstance(message, Dismissed | RuntimeError):
        try:
            message = world.receive(0)
        except RuntimeError as error:
            message = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(inbox.put_nowait, message)


@contextmanager
def _signals(action: signal.Handlers) -> Iterator[None]:
    """What Ctrl-C and SIGTERM do meanwhile, where that can be said: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, action) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
