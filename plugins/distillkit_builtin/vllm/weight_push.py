"""Weight push: new weights into running vLLM servers, a LoRA as an adapter of a new name, all weights in place.

A completion counts as policy `version` only if the server can show that it had these weights: an
adapter by its name, which is new at each version; whole weights by the label that the server keeps beside them and
loses when it is restarted. A version counts from when every replica has it; until then, and if one does not take it,
completions are requested of the version before.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from distillkit.errors import RunFailedError
from distillkit_builtin.remote.results import RefusedError, UnansweredError
from distillkit_builtin.remote.service_client import ServiceClient

LORA_HOW = (
    "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment and --enable-lora --max-lora-rank N (at "
    "least the student's lora_rank)"
)
ALREADY_LOADED = "already been loaded"
"""In what vLLM responds to an adapter's name that it has."""
WEIGHTS_HOW = "start vLLM with VLLM_SERVER_DEV_MODE=1 in its environment, and without --enable-lora"
UNLOAD_SECONDS = 10.0
"""Within which a server must unload an adapter; one that is gone must not hold up the run's end."""
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
    current: PushedVersion | None = None
    """The version that every replica has loaded; None before the first push."""
    pending: PushedVersion | None = None
    """What they are loading, or were loading when that was interrupted."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _repairs: dict[str, int] = field(default_factory=dict)

    @property
    @abstractmethod
    def model(self) -> str:
        """The model name that completions of the current version are requested of."""

    @property
    def served(self) -> PushedVersion:
        """The current version. Raises RuntimeError before the first push."""
        if self.current is None:
            raise RuntimeError("sampler 'vllm' is used before its first sync")
        return self.current

    async def push(self, version: int, path: Path) -> None:
        """Load a version everywhere; it is the current one once all replicas have it.

        Raises:
            RunFailedError: with each replica that did not load it, and its error. The version is unloaded from the
                others where that is possible, and the one before stays the current one.
        """
        self.pending = PushedVersion(version, str(path), f"distillkit-{self.nonce}-v{version}")
        problems = await self._load_everywhere(self.pending)
        if problems:
            raise RunFailedError(await self._undo(self.pending, problems))
        self.current, self.pending = self.pending, None

    async def _load_everywhere(self, new: PushedVersion) -> Mapping[str, LoadError]:
        async with asyncio.TaskGroup() as group:
            loads = {root: group.create_task(self._try_to_load(root, new)) for root in self.client.roots}
        return {root: problem for root, load in loads.items() if (problem := load.result()) is not None}

    async def _try_to_load(self, root: str, new: PushedVersion) -> LoadError | None:
        try:
            await self.load(root, new)
        except (RefusedError, UnansweredError) as error:
            return error
        return None

    async def _undo(self, new: PushedVersion, problems: Mapping[str, LoadError]) -> str:
        """Unload what was loaded; returns the error's message. A load without a response may have been done."""
        refused = {root for root, problem in problems.items() if isinstance(problem, RefusedError)}
        remaining = await self.unload_from(new, (root for root in self.client.roots if root not in refused))
        self.pending = None
        rest = "".join(f"; it may still be loaded: {reason}" for reason in remaining)
        return f"{self._not_loaded(new, problems)}{rest}; {self.how_to_start}"

    def _not_loaded(self, new: PushedVersion, problems: Mapping[str, LoadError]) -> str:
        where = "; at ".join(f"{root}: {_reason(problem)}" for root, problem in problems.items())
        return f"policy version {new.version} ({new.path}) could not be loaded at {where}"

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

        Returns when it is loaded. Raises RunFailedError if the replica does not load it.
        """
        async with self._locks.setdefault(root, asyncio.Lock()):
            if self.repairs(root) == seen:
                self._repairs[root] = seen + 1
                problem = await self._try_to_load(root, self.served)
                if problem is not None:
                    raise RunFailedError(f"{self._not_loaded(self.served, {root: problem})}; {self.how_to_start}")
                self._repairs[root] = seen + 2

    async def holds_since(self, root: str, seen: int) -> bool:
        """Whether a result is surely of this version, requested when `repairs` was `seen`, and the replica has it.

        A result from before a repair, or from within, is of other weights, although the replica has ours by now.
        """
        return await self.holds(root) and seen == self.repairs(root) and seen % 2 == 0

    @property
    @abstractmethod
    def how_to_start(self) -> str:
        """How a server has to be started for this, as an error says it."""

    @abstractmethod
    async def load(self, root: str, new: PushedVersion) -> None:
        """Load a version into one replica. Raises RefusedError, UnansweredError."""

    @abstractmethod
    async def unload(self, root: str, old: PushedVersion) -> None:
        """Unload a version from one replica. Raises RefusedError, UnansweredError."""

    @abstractmethod
    async def holds(self, root: str) -> bool:
        """Whether a replica that has just responded had the current version's weights."""


def _reason(problem: LoadError) -> str:
    return f"answered {problem.status}: {problem.message}" if isinstance(problem, RefusedError) else problem.reason


class AdapterPush(WeightPush):
    """A LoRA, pushed by `/v1/load_lora_adapter`."""

    @property
    def model(self) -> str:
        """The adapter's name at the servers."""
        return self.served.label

    @property
    def how_to_start(self) -> str:
        """How to start vLLM with runtime adapters, for messages."""
        return LORA_HOW

    async def load(self, root: str, new: PushedVersion) -> None:
        """A new name a version: vLLM caches what it has read under a name."""
        adapter: dict[str, JsonValue] = {"lora_name": new.label, "lora_path": new.path}
        try:
            await self.client.post_to(root, "/v1/load_lora_adapter", adapter)
        except RefusedError as error:
            if error.status != 400 or ALREADY_LOADED not in error.message:
                raise  # else an attempt whose response was lost did it: nobody else uses our names

    async def unload(self, root: str, old: PushedVersion) -> None:
        """Unload it; a replica that was restarted has it no more."""
        try:
            await self.client.post_to(root, "/v1/unload_lora_adapter", {"lora_name": old.label})
        except RefusedError as error:
            if error.status != 404:
                raise

    async def holds(self, root: str) -> bool:
        """True: a server gives results of an adapter only if it has one of that name."""
        return True


class FullWeightsPush(WeightPush):
    """All weights: vLLM's development endpoints reload them from a directory."""

    @property
    def model(self) -> str:
        """The base model's name: its weights are replaced."""
        return self.base_model

    @property
    def how_to_start(self) -> str:
        """How to start vLLM with the development endpoints, for messages."""
        return WEIGHTS_HOW

    async def load(self, root: str, new: PushedVersion) -> None:
        """Replace the weights, forget what was computed with the old ones, and label the new ones.

        The old label goes first: should this end half-way, the replica counts as having no version.
        """
        arguments: dict[str, JsonValue] = {"weights_path": new.path}
        await self.client.post_to(root, "/update_weight_version", {"new_version": f"{new.label}-loading"})
        await self.client.post_to(root, "/collective_rpc", {"method": "reload_weights", "kwargs": arguments})
        await self.client.post_to(root, "/reset_prefix_cache", {})
        await self.client.post_to(root, "/update_weight_version", {"new_version": new.label})

    async def unload(self, root: str, old: PushedVersion) -> None:
        """Nothing: weights are replaced, and a replica with others than the current ones is given those again."""

    async def holds(self, root: str) -> bool:
        """Whether the label is still ours: a restarted server has its own weights and none of our labels."""
        result = await self.client.get_from(root, "/weight_info")
        return isinstance(result.value, dict) and result.value.get("weight_version") == self.served.label
