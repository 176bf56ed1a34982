"""What every rank but 0 runs: it executes rank 0's commands until the run has ended."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit_builtin.local.device import shared_device
from distillkit_builtin.local.options import LocalStudentOptions
from distillkit_builtin.local.ranks.commands import Command
from distillkit_builtin.local.ranks.heartbeat import Heartbeat
from distillkit_builtin.local.ranks.messages import Cancel, Done, Execute, Failed, Item, ShutDown, Stopped, portable
from distillkit_builtin.local.ranks.process_group import ProcessGroup
from distillkit_builtin.local.ranks.worker_state import WorkerState

log = logging.getLogger("distillkit")


async def run_worker(run: RunContext, options: LocalStudentOptions, *, samples: bool) -> Mapping[str, str]:
    """Meet the other ranks, and execute rank 0's commands until it shuts this one down.

    Returns what the run left that says what it came to: the content of files in its directory, by name.

    Raises:
        RunFailedError: if rank 0 is gone before.
    """
    device = shared_device(run, options.device)
    with _signals(signal.SIG_DFL):  # until all are there, nothing but the end of this process would end its waiting
        group = await device.run(ProcessGroup.join, device.device)
    inbox: asyncio.Queue[object] = asyncio.Queue()
    state = WorkerState(run, options, samples, group, inbox)
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(group, loop, inbox), daemon=True, name="distillkit-rank-0").start()
    with _signals(signal.SIG_IGN):  # they reach every rank; what they mean is for rank 0 to decide
        try:
            return await _execute_commands(state)
        finally:
            state.send(Stopped())
            state.close()
            group.leave()


async def _execute_commands(state: WorkerState) -> Mapping[str, str]:
    """Until rank 0 shuts this one down, which cancels the rest. Raises RunFailedError if rank 0 is gone."""
    tasks: dict[int, asyncio.Task[None]] = {}
    heartbeat = Heartbeat([0])
    beating = asyncio.create_task(heartbeat.beat(state.say_alive, state.give_up))
    try:
        while not isinstance(message := await state.inbox.get(), ShutDown):
            heartbeat.heard(0)
            if isinstance(message, Execute):
                task = asyncio.create_task(_execute(state, message))
                tasks[message.number] = task
                task.add_done_callback(partial(_forget, tasks, message.number))
            elif isinstance(message, Cancel) and message.number in tasks:
                tasks[message.number].cancel()
            elif isinstance(message, BaseException):
                raise RunFailedError(f"rank 0 is gone, or a message cannot be sent to it: {message}") from message
        return message.files
    finally:
        unfinished = [beating, *tasks.values()]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)


async def _execute(state: WorkerState, message: Execute[Command]) -> None:
    """Execute one command, and send what comes of it."""
    number, command = message.number, message.command
    try:
        result = await command.execute(state, lambda value: state.send(Item(number, value)))
    except Exception as error:
        log.debug("rank %d: %s", state.group.rank, type(command).__name__, exc_info=True)
        state.send(Failed(number, portable(error, state.group.named(state.group.rank))))
    else:
        state.send(Done(number, result))


def _forget(tasks: "dict[int, asyncio.Task[None]]", number: int, task: "asyncio.Task[None]") -> None:
    del tasks[number]


def _listen(group: ProcessGroup, loop: asyncio.AbstractEventLoop, inbox: "asyncio.Queue[object]") -> None:
    """In a thread, until rank 0 shuts this one down or is gone."""
    message: object = None
    while not isinstance(message, ShutDown | RuntimeError):
        try:
            message = group.receive(0)
        except RuntimeError as error:
            message = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(inbox.put_nowait, message)


@contextmanager
def _signals(action: signal.Handlers) -> Iterator[None]:
    """What Ctrl-C and SIGTERM do meanwhile, where that can be set: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, action) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
