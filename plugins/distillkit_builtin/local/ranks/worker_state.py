"""What every rank but 0 holds: its student and teachers, and the connection to rank 0."""

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from distillkit.context import RunContext
from distillkit.events import Notice
from distillkit.run_plan import Plan
from distillkit.types import Teacher
from distillkit_builtin.local.build_student import ProvedStudent
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.live_teacher import LiveLocalTeacher
from distillkit_builtin.local.options import LocalStudentOptions
from distillkit_builtin.local.ranks.messages import Alive
from distillkit_builtin.local.ranks.process_group import ProcessGroup


@dataclass(slots=True)
class WorkerState:
    """One rank's models and messages."""

    run: RunContext
    options: LocalStudentOptions
    samples: bool
    """Whether the student is its own sampler."""
    group: ProcessGroup
    inbox: "asyncio.Queue[object]"
    """Messages of rank 0, and an exception once the connection to it has failed."""
    proved: ProvedStudent | None = None
    """The student, between being loaded and being built."""
    student: LiveLocalStudent | None = None
    teachers: dict[str, LiveLocalTeacher] = field(default_factory=dict)
    _silent: bool = False
    _unsent: deque[object] = field(default_factory=deque)
    _sender: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "distillkit-results"))

    def context(self, plan: Plan | None) -> RunContext:
        """The run as what is opened here sees it."""
        tokenizer = None if self.student is None else self.student.tokenizer
        return replace(self.run, plan=plan, tell=self.tell, tokenizer=tokenizer)

    def take_proved(self) -> ProvedStudent:
        """The student that was loaded, once. Raises RuntimeError before that."""
        if self.proved is None:
            raise RuntimeError("the student is to be built before it was loaded")
        proved, self.proved = self.proved, None
        return proved

    def local_teacher(self, teacher: Teacher, place: int) -> Teacher:
        """Rank 0's teacher, the one at `place` in the config, where this host has it."""
        own = self.run.teachers[place]
        return replace(teacher, model=own.model, tokenizer_model=own.tokenizer_model)

    def opened_student(self) -> LiveLocalStudent:
        """The student. Raises RuntimeError before rank 0 had it opened."""
        if self.student is None:
            raise RuntimeError("a command about the student came before it was opened")
        return self.student

    def model(self, teacher: str | None) -> LiveLocalStudent | LiveLocalTeacher:
        """A teacher by name, or with None the student."""
        return self.opened_student() if teacher is None else self.teachers[teacher]

    @contextmanager
    def silent(self) -> Iterator[None]:
        """A context without notices: rank 0 does the same, and notifies by itself."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def tell(self, notice: Notice) -> None:
        """Tell the user, through rank 0."""
        if not self._silent:
            self.send(Notice(f"{self.group.named(self.group.rank)}: {notice.message}", notice.kind))

    def send(self, message: object) -> None:
        """Send to rank 0, in the order of the calls; what is sent while a message is on its way goes together."""
        self._unsent.append(message)
        sent = self._sender.submit(self._send_all)
        sent.add_done_callback(partial(_report_failure, self.inbox, asyncio.get_running_loop()))

    def say_alive(self, rank: int) -> None:
        """Let rank 0 know that this process is there, without waiting; from any thread."""
        self._sender.submit(self._send_alive)

    def _send_alive(self) -> None:
        with suppress(RuntimeError):  # rank 0 went just now, which the listener finds
            self.group.send(0, [Alive()])

    def give_up(self, rank: int, reason: str) -> None:
        """Rank 0 is silent: end this rank."""
        self.inbox.put_nowait(RuntimeError(reason))

    def _send_all(self) -> None:
        """Send all unsent messages as one; runs in the sender's thread."""
        messages = [self._unsent.popleft() for _ in range(len(self._unsent))]
        if messages:
            self.group.send(0, messages)

    def close(self) -> None:
        """Wait until everything is sent; nothing more can be."""
        self._sender.shutdown()


def _report_failure(inbox: "asyncio.Queue[object]", loop: asyncio.AbstractEventLoop, sent: "Future[None]") -> None:
    """In the sender's thread: what could not be sent ends this rank, since rank 0 would wait for it for ever."""
    if not sent.cancelled() and (error := sent.exception()) is not None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(inbox.put_nowait, error)
