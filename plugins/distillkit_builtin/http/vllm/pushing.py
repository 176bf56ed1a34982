"""New weights into running vLLM servers: a LoRA as an adapter of a new name, all weights in place.

Whichever it is, a completion counts as policy `version` only if the server can show that it had these weights: an
adapter by its name, which is new at each version; whole weights by the label that the server keeps beside them and
loses when it is restarted.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from distillkit.errors import RunFailedError
from distillkit_builtin.remote.answers import RefusedError, UnansweredError
from distillkit_builtin.remote.remote import Remote

LORA_HOW = (
    "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment and --enable-lora --max-lora-rank N (at "
    "least the student's lora_rank)"
)
LOADED = "already been loaded"
"""What vLLM says of an adapter's name that it has."""
WEIGHTS_HOW = "start vLLM with VLLM_SERVER_DEV_MODE=1 in its environment, and without --enable-lora"


@dataclass(slots=True)
class Pusher(ABC):
    """One policy version on every replica."""

    remote: Remote
    base_model: str
    """As the servers call it."""
    nonce: str
    """Of this process, so that what another run pushed is never taken for ours."""
    version: int = -1
    path: str = ""
    """Where the servers find the version's files."""
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _repairs: dict[str, int] = field(default_factory=dict)

    @property
    @abstractmethod
    def model(self) -> str:
        """What completions of the version are asked of."""

    @property
    def label(self) -> str:
        """The version's name at the servers."""
        return f"distillkit-{self.nonce}-v{self.version}"

    async def push(self, version: int, path: Path) -> None:
        """Load the version everywhere. Raises RunFailedError with what a server says."""
        self.version, self.path = version, str(path)
        await asyncio.gather(*(self._put(root) for root in self.remote.roots))

    async def _put(self, root: str) -> None:
        try:
            await self.load(root)
        except (RefusedError, UnansweredError) as error:
            said = f"answered {error.status}: {error.message}" if isinstance(error, RefusedError) else error.reason
            raise RunFailedError(
                f"policy version {self.version} ({self.path}) could not be loaded at {root}: {said}; "
                f"{self.how_to_start}"
            ) from error

    def repairs(self, root: str) -> int:
        """Counts the times that a replica is given the version again: by one when it begins, and when it has ended."""
        return self._repairs.get(root, 0)

    async def repair(self, root: str, seen: int) -> None:
        """Load the version again into a replica that lost it, unless somebody did or does since `repairs` was `seen`.

        Returns when it is there.
        """
        async with self._locks.setdefault(root, asyncio.Lock()):
            if self.repairs(root) == seen:
                self._repairs[root] = seen + 1
                await self._put(root)
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
    async def load(self, root: str) -> None:
        """Load the version into one replica."""

    @abstractmethod
    async def drop(self, label: str) -> None:
        """Let go of an old version."""

    @abstractmethod
    async def holds(self, root: str) -> bool:
        """Whether a replica that has just answered had the version's weights."""


class AdapterPusher(Pusher):
    """A LoRA: `/v1/load_lora_adapter`."""

    @property
    def model(self) -> str:
        """The adapter's name."""
        return self.label

    @property
    def how_to_start(self) -> str:
        """With runtime adapters."""
        return LORA_HOW

    async def load(self, root: str) -> None:
        """A new name a version: vLLM caches what it has read under a name."""
        adapter: dict[str, JsonValue] = {"lora_name": self.label, "lora_path": self.path}
        try:
            await self.remote.post_to(root, "/v1/load_lora_adapter", adapter)
        except RefusedError as error:
            if error.status != 400 or LOADED not in error.message:
                raise  # else an attempt whose answer was lost did it: nobody else has names of ours

    async def drop(self, label: str) -> None:
        """Unload it; a replica that was restarted has it no more."""
        for root in self.remote.roots:
            try:
                await self.remote.post_to(root, "/v1/unload_lora_adapter", {"lora_name": label})
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

    async def load(self, root: str) -> None:
        """Replace the weights, forget what was computed with the old ones, and label the new ones."""
        arguments: dict[str, JsonValue] = {"weights_path": self.path}
        await self.remote.post_to(root, "/collective_rpc", {"method": "reload_weights", "kwargs": arguments})
        await self.remote.post_to(root, "/reset_prefix_cache", {})
        await self.remote.post_to(root, "/update_weight_version", {"new_version": self.label})

    async def drop(self, label: str) -> None:
        """Nothing: the new weights stand where the old ones were."""

    async def holds(self, root: str) -> bool:
        """Whether the label is still ours: a restarted server has its own weights and none of our labels."""
        answer = await self.remote.get_from(root, "/weight_info")
        return isinstance(answer.value, dict) and answer.value.get("weight_version") == self.label
