"""New weights into running vLLM servers: a LoRA as an adapter of a new name, all weights in place.

Whichever it is, a completion counts as policy `version` only if the server can show that it had these weights: an
adapter by its name, which is new at each version; whole weights by the label that the server keeps beside them and
loses when it is restarted. A version counts from when every replica has it; until then, and if one does not take it,
the version before stays what is asked for.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from distillkit.errors import RunFailedError
from distillkit_builtin.remote.results import RefusedError, UnansweredError
from distillkit_builtin.remote.service_client import Remote

LORA_HOW = (
    "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment and --enable-lora --max-lora-rank N (at "
    "least the student's lora_rank)"
)
LOADED = "already been loaded"
"""What vLLM says of an adapter's name that it has."""
WEIGHTS_HOW = "start vLLM with VLLM_SERVER_DEV_MODE=1 in its environment, and without --enable-lora"
UNLOAD_SECONDS = 10.0
"""For an adapter that is not needed any more; a server that is gone must not hold up the run's end."""
Problem = RefusedError | UnansweredError


@dataclass(frozen=True, slots=True)
class Pushed:
    """One policy version as the servers know it."""

    version: int
    path: str
    """Where the servers find its files."""
    label: str
    """Its name at the servers."""


@dataclass(slots=True)
class Pusher(ABC):
    """Policy versions on every replica, one after the other."""

    remote: Remote
    base_model: str
    """As the servers call it."""
    nonce: str
    """Of this process, so that what another run pushed is never taken for ours."""
    current: Pushed | None = None
    """What every replica has been given."""
    pending: Pushed | None = None
    """What is being given to them, or was when that was interrupted."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _repairs: dict[str, int] = field(default_factory=dict)

    @property
    @abstractmethod
    def model(self) -> str:
        """What completions of the current version are asked of."""

    @property
    def served(self) -> Pushed:
        """The current version. Raises RuntimeError before there is one."""
        if self.current is None:
            raise RuntimeError("sampler 'vllm' is asked before its first sync")
        return self.current

    async def push(self, version: int, path: Path) -> None:
        """Load a version everywhere; it is the current one once all replicas have it.

        Raises:
            RunFailedError: with each replica that did not take it and what it says. The version is unloaded from the
                others where that is possible, and the one before stays the current one.
        """
        self.pending = Pushed(version, str(path), f"distillkit-{self.nonce}-v{version}")
        problems = await self._load_everywhere(self.pending)
        if problems:
            raise RunFailedError(await self._taken_back(self.pending, problems))
        self.current, self.pending = self.pending, None

    async def _load_everywhere(self, new: Pushed) -> Mapping[str, Problem]:
        async with asyncio.TaskGroup() as group:
            loads = {root: group.create_task(self._try_to_load(root, new)) for root in self.remote.roots}
        return {root: problem for root, load in loads.items() if (problem := load.result()) is not None}

    async def _try_to_load(self, root: str, new: Pushed) -> Problem | None:
        try:
            await self.load(root, new)
        except (RefusedError, UnansweredError) as error:
            return error
        return None

    async def _taken_back(self, new: Pushed, problems: Mapping[str, Problem]) -> str:
        """Unload what was loaded; what the user is told. A load that was not answered may have been done."""
        refused = {root for root, problem in problems.items() if isinstance(problem, RefusedError)}
        left = await self.let_go(new, (root for root in self.remote.roots if root not in refused))
        self.pending = None
        rest = "".join(f"; it may still be loaded: {why}" for why in left)
        return f"{self._not_loaded(new, problems)}{rest}; {self.how_to_start}"

    def _not_loaded(self, new: Pushed, problems: Mapping[str, Problem]) -> str:
        where = "; at ".join(f"{root}: {_said(problem)}" for root, problem in problems.items())
        return f"policy version {new.version} ({new.path}) could not be loaded at {where}"

    async def let_go(self, old: Pushed, roots: Iterable[str]) -> Sequence[str]:
        """Unload a version from replicas, in bounded time; why it may still be loaded, a text for each where it may."""
        async with asyncio.TaskGroup() as group:
            drops = [group.create_task(self._try_to_drop(root, old)) for root in roots]
        return [why for drop in drops if (why := drop.result()) is not None]

    async def _try_to_drop(self, root: str, old: Pushed) -> str | None:
        try:
            async with asyncio.timeout(UNLOAD_SECONDS):
                await self.drop(root, old)
        except (RefusedError, UnansweredError) as error:
            return str(error)
        except TimeoutError:
            return f"{root}: no answer within {UNLOAD_SECONDS:g} s"
        return None

    def repairs(self, root: str) -> int:
        """Counts the times that a replica is given the version again: by one when it begins, and when it has ended."""
        return self._repairs.get(root, 0)

    async def repair(self, root: str, seen: int) -> None:
        """Load the version again into a replica that lost it, unless somebody did or does since `repairs` was `seen`.

        Returns when it is there. Raises RunFailedError if the replica does not take it.
        """
        async with self._locks.setdefault(root, asyncio.Lock()):
            if self.repairs(root) == seen:
                self._repairs[root] = seen + 1
                problem = await self._try_to_load(root, self.served)
                if problem is not None:
                    raise RunFailedError(f"{self._not_loaded(self.served, {root: problem})}; {self.how_to_start}")
                self._repairs[root] = seen + 2

    async def had(self, root: str, seen: int) -> bool:
        """Whether an answer is surely of this version: `repairs` was `seen` when it was asked for, and it is there.

        An answer from before a repair, or from within, is of other weights, although the replica has ours by now.
        """
        return await self.holds(root) and seen == self.repairs(root) and seen % 2 == 0

    @property
    @abstractmethod
    def how_to_start(self) -> str:
        """What a server needs for this."""

    @abstractmethod
    async def load(self, root: str, new: Pushed) -> None:
        """Load a version into one replica. Raises RefusedError, UnansweredError."""

    @abstractmethod
    async def drop(self, root: str, old: Pushed) -> None:
        """Let one replica forget a version. Raises RefusedError, UnansweredError."""

    @abstractmethod
    async def holds(self, root: str) -> bool:
        """Whether a replica that has just answered had the current version's weights."""


def _said(problem: Problem) -> str:
    return f"answered {problem.status}: {problem.message}" if isinstance(problem, RefusedError) else problem.reason


class AdapterPusher(Pusher):
    """A LoRA: `/v1/load_lora_adapter`."""

    @property
    def model(self) -> str:
        """The adapter's name."""
        return self.served.label

    @property
    def how_to_start(self) -> str:
        """With runtime adapters."""
        return LORA_HOW

    async def load(self, root: str, new: Pushed) -> None:
        """A new name a version: vLLM caches what it has read under a name."""
        adapter: dict[str, JsonValue] = {"lora_name": new.label, "lora_path": new.path}
        try:
            await self.remote.post_to(root, "/v1/load_lora_adapter", adapter)
        except RefusedError as error:
            if error.status != 400 or LOADED not in error.message:
                raise  # else an attempt whose answer was lost did it: nobody else has names of ours

    async def drop(self, root: str, old: Pushed) -> None:
        """Unload it; a replica that was restarted has it no more."""
        try:
            await self.remote.post_to(root, "/v1/unload_lora_adapter", {"lora_name": old.label})
        except RefusedError as error:
            if error.status != 404:
                raise

    async def holds(self, root: str) -> bool:
        """A server answers for an adapter only if it has one of that name."""
        return True


class WeightsPusher(Pusher):
    """All weights: vLLM's development endpoints reload them from a directory."""

    @property
    def model(self) -> str:
        """The base model's name: its weights are replaced."""
        return self.base_model

    @property
    def how_to_start(self) -> str:
        """With the development endpoints."""
        return WEIGHTS_HOW

    async def load(self, root: str, new: Pushed) -> None:
        """Replace the weights, forget what was computed with the old ones, and label the new ones.

        The old label goes first: should this end half-way, no version is taken for what the replica then holds.
        """
        arguments: dict[str, JsonValue] = {"weights_path": new.path}
        await self.remote.post_to(root, "/update_weight_version", {"new_version": f"{new.label}-loading"})
        await self.remote.post_to(root, "/collective_rpc", {"method": "reload_weights", "kwargs": arguments})
        await self.remote.post_to(root, "/reset_prefix_cache", {})
        await self.remote.post_to(root, "/update_weight_version", {"new_version": new.label})

    async def drop(self, root: str, old: Pushed) -> None:
        """Nothing: weights are replaced, and a replica with others than the current ones is given those again."""

    async def holds(self, root: str) -> bool:
        """Whether the label is still ours: a restarted server has its own weights and none of our labels."""
        answer = await self.remote.get_from(root, "/weight_info")
        return isinstance(answer.value, dict) and answer.value.get("weight_version") == self.served.label
