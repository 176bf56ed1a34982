"""What the engine gives to plugins: the run they belong to, and the live objects that they share."""

import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol, TypeVar, cast

from pydantic import JsonValue

from distillkit.events import Notice, NoticeKind
from distillkit.frozen import FrozenDict
from distillkit.memory import PlannedDevice
from distillkit.ranks import ONLY, Rank
from distillkit.run_plan import Plan
from distillkit.tokenizer import Tokenizer
from distillkit.types import Teacher

T = TypeVar("T")
log = logging.getLogger("distillkit")


class Notify(Protocol):
    """`RunContext.notify`, as what is given no run takes it."""

    def __call__(self, message: str, kind: NoticeKind = "note") -> None:
        """Tell the user something once."""
        ...


def log_level(kind: NoticeKind) -> int:
    """The level at which a notice of this kind is logged."""
    return logging.WARNING if kind == "warning" else logging.INFO


@dataclass(slots=True)
class _Shared:
    value: object
    close: Callable[[], Awaitable[None] | None]
    users: set[str]


class SharedObjects:
    """The one live object for each key of a run: a base model on a device, a service client, a deployment."""

    def __init__(self) -> None:
        """Start with nothing shared."""
        self.ended_by: BaseException | None = None
        self._objects: dict[Hashable, _Shared] = {}
        self._lock = threading.RLock()

    def get(
        self, user: str, key: Hashable, make: Callable[[], T], close: Callable[[T], Awaitable[None] | None] | None
    ) -> T:
        """The object of `key`, made by the first user that asks. May be called from any thread."""
        with self._lock:
            if key not in self._objects:
                value = make()
                self._objects[key] = _Shared(value, lambda: close(value) if close else None, set())
            shared = self._objects[key]
            shared.users.add(user)
            return cast(T, shared.value)

    async def release(self, user: str, ended_by: BaseException | None = None) -> None:
        """Forget `user`, and close what nobody else uses, the newest first; `ended_by` ended the run, if not None."""
        self.ended_by = self.ended_by or ended_by
        for key in reversed(list(self._objects)):
            shared = self._objects[key]
            shared.users.discard(user)
            if not shared.users:
                del self._objects[key]
                closing = shared.close()
                if inspect.isawaitable(closing):
                    await closing


@dataclass(frozen=True, slots=True)
class RunContext:
    """The run as one plugin sees it."""

    user: str
    """Which plugin this context was made for, such as `teachers.short.scorer`."""
    name: str
    """The run's, `name` of the config."""
    seed: int
    """`seed` of the config."""
    run_dir: Path | None
    """Where the run writes; None in `distillkit check`, which writes nothing."""
    tell: Callable[[Notice], None]
    """Shows the user a notice, on the terminal and in `run.log`; plugins use `notify`."""
    shared: SharedObjects = field(repr=False)
    """The live objects that plugins of the run share by `share`."""
    plan: Plan | None = None
    """Upper bounds of the run's rows, steps and tokens; None during `check`."""
    teachers: tuple[Teacher, ...] = ()
    """All teachers of the run, in the config's order."""
    tokenizer: Tokenizer | None = None
    """The student's, from `open` on; None during `check`."""
    rank: Rank = ONLY
    """Which of the run's processes this is."""
    must_agree: Mapping[str, JsonValue] = field(default_factory=FrozenDict)
    """What the processes of a run must have alike, by name: options, and the code of scripts. Empty for a process that
    is alone; a Student that `spreads` compares it across ranks, before anything is loaded."""
    today: date = field(default_factory=date.today)
    """The day on which the run began, or `sampling.template_date`: what a chat template writes that asks for today."""
    scorer_needs: Mapping[str, int] = field(default_factory=FrozenDict)
    """What loss and weightings need of every scorer besides `sampled`, by capability with the amount (`Loss.needs`)."""
    sampler_needs: Mapping[str, int] = field(default_factory=FrozenDict)
    """What they need of the sampler (`Loss.sampler_needs`)."""
    outer_dir: Path | None = None
    """The run's directory where `run_dir` is a temporary folder of it, as for a probe: a server that sees the run's
    directory elsewhere finds `run_dir` below that. None: `run_dir` is the run's directory."""
    stop_ids: tuple[int, ...] = ()
    """The token ids that end the student's completions, its model's own among them; from `open` on."""
    loss_reads: frozenset[str] = frozenset({"logprobs"})
    """What the run's loss reads of the student (`Loss.reads`), and `full` where it needs teachers' distributions."""
    planned_device: PlannedDevice | None = None
    """The card that `distillkit check --device` plans the run for, in the place of this machine's; else None."""
    trains: bool = True
    """Whether the student is opened to be trained, or checked for that; False: its weights are measured, sampled or
    exported alone (`distillkit eval`, `generate`, `diagnose`, `export`), and what only training needs is left out."""

    @property
    def ended_by(self) -> BaseException | None:
        """What ended the run before its time: an error, or an interrupt. Known while shared objects are closed."""
        return self.shared.ended_by

    def notify(self, message: str, kind: NoticeKind = "note") -> None:
        """Tell the user something once, on the terminal and in `run.log`: a sentence, with what to do about a warning.

        `note`: what is set so, or goes as it should (`loading ...`); `warning`: what is likely wrong, or did not work.
        """
        self.tell(Notice(message, kind))

    def notify_as(self, who: str) -> Notify:
        """`notify` with `who: ` in front of each message."""

        def notify(message: str, kind: NoticeKind = "note") -> None:
            self.notify(f"{who}: {message}", kind)

        return notify

    def share(
        self,
        key: Hashable,
        make: Callable[[], T],
        close: Callable[[T], Awaitable[None] | None] | None = None,
    ) -> T:
        """The one live object for `key` in this run; closed by `close` after the plugin that used it last.

        Student and scorers meet only here. `make` may take long: call this from a worker thread then.
        """
        return self.shared.get(self.user, key, make, close)
