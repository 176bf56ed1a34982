"""Weight push: new weights into running servers, a LoRA as an adapter of a new name, all weights in place.

A completion counts as policy `version` only if the server can show that it had these weights: an
adapter by its name, which is new at each version; whole weights by the label that the server keeps beside them and
loses when it is restarted: the answer names it itself (SGLang, vLLM's token interface), or the server is asked
afterwards. A version counts from when every replica has it; until then, and if one does not take it, completions are
requested of the version before.

A replica that does not answer at all, while others do, is absent: they go on without it. When it is back, it is given
the current version before a completion of it counts, as one that was restarted is.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distillkit.errors import InputError, RunFailedError
from distillkit.frozen import frozen
from distillkit_builtin.remote.results import RefusedError, UnansweredError
from distillkit_builtin.remote.service_client import ServiceClient

DISK_HOW = (
    "a server reads weights from a directory that it sees itself: let it see the run's directory by a disk that both "
    "have, and set student.sampler.server_run_dir to where that is there; without one let the student sample by itself "
    "(no student.sampler)"
)
LABEL = "distillkit-"
"""What the names of all versions begin with."""
UNLOAD_SECONDS = 10.0
"""Within which a server must unload an adapter; one that is gone must not hold up the run's end."""
THERE_SECONDS = 10.0
"""Within which one of several replicas must answer anything, or it is absent."""
LoadError = RefusedError | UnansweredError


@dataclass(frozen=True, slots=True)
class PushedVersion:
    """One policy version as the servers know it."""

    version: int
    path: str
    """The directory in which the servers find the weights."""
    label: str
    """The version's name at the servers."""


@dataclass(slots=True)
class WeightPush(ABC):
    """Policy versions on every replica, one after the other."""

    client: ServiceClient
    base_model: str
    """The base model's name at the servers."""
    nonce: str
    """Of this process, so that what another run pushed is never taken for ours."""
    base_versions: Mapping[str, str] = field(default_factory=lambda: frozen({}))
    """What each replica called its base model's weights when the run started; empty where answers do not say it."""
    current: PushedVersion | None = None
    """The version that every replica has loaded; None before the first push."""
    pending: PushedVersion | None = None
    """What they are loading, or were loading when that was interrupted."""
    absent: set[str] = field(default_factory=set)
    """Replicas that did not answer when the current version was pushed, and have not been given it since."""
    _old: dict[str, list[PushedVersion]] = field(default_factory=dict)
    """What an absent replica may have loaded still."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _repairs: dict[str, int] = field(default_factory=dict)

    @property
    @abstractmethod
    def model(self) -> str:
        """The model name that completions of the current version are requested of."""

    @property
    def cache_salt(self) -> str | None:
        """What keeps the current version's prefixes apart from others' in a server's cache; None: its name does."""
        return None

    @property
    def served(self) -> PushedVersion:
        """The current version. Raises RuntimeError before the first push."""
        if self.current is None:
            raise RuntimeError("the sampler is used before its first sync")
        return self.current

    async def push(self, version: int, path: Path) -> Mapping[str, str]:
        """Load a version everywhere; it is the current one once all replicas have it that answer.

        Returns the reason of each replica that has become absent, by its address.

        Raises:
            RunFailedError: with each replica that did not load it, and its error, if one refused it or none is there.
                The version is unloaded from the others where that is possible, and the one before stays the current
                one.
            InputError: instead, if it is the first version, and a server does not see its directory.
        """
        self.pending = PushedVersion(version, str(path), f"{LABEL}{self.nonce}-v{version}")
        problems = await self._load_everywhere(self.pending)
        if len(problems) == len(self.client.roots) or any(map(_is_refused, problems.values())):
            unseen = any(map(self.is_unseen, problems.values()))
            kind = InputError if unseen and self.current is None else RunFailedError
            raise kind(await self._undo(self.pending, problems))
        self.current, self.pending = self.pending, None
        found = {root: _reason(problem) for root, problem in problems.items() if root not in self.absent}
        self.absent = set(problems)
        return found

    async def _load_everywhere(self, new: PushedVersion) -> Mapping[str, LoadError]:
        async with asyncio.TaskGroup() as group:
            loads = {root: group.create_task(self._try_to_load(root, new)) for root in self.client.roots}
        return {root: problem for root, load in loads.items() if (problem := load.result()) is not None}

    async def _try_to_load(self, root: str, new: PushedVersion) -> LoadError | None:
        try:
            await self._require_there(root)
            await self.load(root, new)
        except (RefusedError, UnansweredError) as error:
            return error
        for old in self._old.pop(root, ()):
            await self._try_to_unload(root, old)  # one that was restarted has it no more
        return None

    async def _require_there(self, root: str) -> None:
        """Raise UnansweredError for one of several replicas that does not answer anything in a moment."""
        if len(self.client.roots) == 1:
            return
        if await self.client.get_once(root, "/v1/models", THERE_SECONDS) is None:
            raise UnansweredError(f"{root}: no answer within {THERE_SECONDS:g} s", 1, None)

    async def _undo(self, new: PushedVersion, problems: Mapping[str, LoadError]) -> str:
        """Unload what was loaded; returns the error's message. A load without a response may have been done."""
        refused = {root for root, problem in problems.items() if _is_refused(problem)}
        remaining = await self.unload_from(new, (root for root in self.client.roots if root not in refused))
        self.pending = None
        rest = "".join(f"; it may still be loaded: {reason}" for reason in remaining)
        return f"{self._not_loaded(new, problems)}{rest}; {self._how(problems)}"

    def _not_loaded(self, new: PushedVersion, problems: Mapping[str, LoadError]) -> str:
        where = "; at ".join(f"{root}: {_reason(problem)}" for root, problem in problems.items())
        return f"policy version {new.version} ({new.path}) could not be loaded at {where}"

    def _how(self, problems: Mapping[str, LoadError]) -> str:
        """What to do about them."""
        return DISK_HOW if any(map(self.is_unseen, problems.values())) else self.how_to_start

    async def unload_old(self, old: PushedVersion) -> Sequence[str]:
        """Unload a version that is not used any more, from an absent replica once it is back; as `unload_from`."""
        for root in self.absent:
            self._old.setdefault(root, []).append(old)
        return await self.unload_from(old, (root for root in self.client.roots if root not in self.absent))

    async def unload_from(self, old: PushedVersion, roots: Iterable[str]) -> Sequence[str]:
        """Unload a version from replicas, in bounded time. Returns a reason for each that may still have it."""
        async with asyncio.TaskGroup() as group:
            unloads = [group.create_task(self._try_to_unload(root, old)) for root in roots]
        return [reason for unload in unloads if (reason := unload.result()) is not None]

    async def _try_to_unload(self, root: str, old: PushedVersion) -> str | None:
        try:
            async with asyncio.timeout(UNLOAD_SECONDS):
                await self.unload(root, old)
        except (RefusedError, UnansweredError) as error:
            return str(error)
        except TimeoutError:
            return f"{root}: no answer within {UNLOAD_SECONDS:g} s"
        return None

    def repairs(self, root: str) -> int:
        """How often a replica was given the version again: plus 1 when that begins, and plus 1 when it has ended."""
        return self._repairs.get(root, 0)

    async def repair(self, root: str, seen: int) -> None:
        """Load the version again into a replica that lost it, unless that was or is done since `repairs` was `seen`.

        Returns when that has ended: when it is loaded, or one of several replicas is gone again.

        Raises:
            RunFailedError: if the replica refuses it, or does not answer and is the only one.
        """
        async with self._locks.setdefault(root, asyncio.Lock()):
            if self.repairs(root) != seen:
                return
            self._repairs[root] = seen + 1
            try:
                problem = await self._try_to_load(root, self.served)
            finally:
                self._repairs[root] = seen + 2
            if problem is None:
                self.absent.discard(root)
            elif _is_refused(problem) or len(self.client.roots) == 1:
                problems = {root: problem}
                raise RunFailedError(f"{self._not_loaded(self.served, problems)}; {self._how(problems)}")

    async def holds_since(self, root: str, seen: int) -> bool:
        """Whether a result is surely of this version, requested when `repairs` was `seen`, and the replica has it.

        A result from before a repair, or from within, is of other weights, although the replica has ours by now.
        """
        return await self.holds(root) and seen == self.repairs(root) and seen % 2 == 0

    @abstractmethod
    def sampled_it_all(self, root: str, versions: frozenset[str]) -> bool:
        """Whether an answer that names the `versions` of the weights of its tokens is of the current version alone.

        Raises:
            RunFailedError: if it never will be, since somebody else replaces weights at the replica.
        """

    @property
    @abstractmethod
    def how_to_start(self) -> str:
        """How a server has to be started for this, as an error says it."""

    @abstractmethod
    def is_unseen(self, problem: LoadError) -> bool:
        """Whether the server does not find what it was to load, as its answer says."""

    @abstractmethod
    async def load(self, root: str, new: PushedVersion) -> None:
        """Load a version into one replica. Raises RefusedError, UnansweredError."""

    @abstractmethod
    async def unload(self, root: str, old: PushedVersion) -> None:
        """Unload a version from one replica. Raises RefusedError, UnansweredError."""

    @abstractmethod
    async def holds(self, root: str) -> bool:
        """Whether a replica that has just responded had the current version's weights."""


def _is_refused(problem: LoadError) -> bool:
    return isinstance(problem, RefusedError)


def _reason(problem: LoadError) -> str:
    return f"answered {problem.status}: {problem.message}" if isinstance(problem, RefusedError) else problem.reason
