"""What is pushed, and how vLLM takes it: a LoRA as an adapter of a new name, all weights in place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from pydantic import JsonValue

from distillkit_builtin.pushed.adapter_push import AdapterPush
from distillkit_builtin.pushed.weight_push import THERE_SECONDS, LoadError, PushedVersion, WeightPush
from distillkit_builtin.remote.response import SERVER_ERROR
from distillkit_builtin.remote.results import RefusedError, Result, UnansweredError

LORA_HOW = (
    "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment and --enable-lora --max-lora-rank N (at "
    "least the student's lora_rank)"
)
ALREADY_LOADED = "already been loaded"
"""In what vLLM responds to an adapter's name that it has."""
NO_SUCH_ENDPOINT = (404, 405)
RESUME_SECONDS, RESUME_EVERY = 30.0, 1.0
"""Within which a server must go on that was paused, and how often one is asked to that does not yet."""
WEIGHTS_HOW = (
    "start vLLM with VLLM_SERVER_DEV_MODE=1 in its environment, and without --enable-lora; it must see that directory "
    "(student.sampler.server_run_dir says where)"
)


NO_ADAPTER = "No adapter found"
"""In what vLLM responds, with 404, where it finds no adapter at the path that it is given."""


class VllmAdapterPush(AdapterPush):
    """A LoRA, pushed by `/v1/load_lora_adapter`."""

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

    def is_unseen(self, problem: LoadError) -> bool:
        """Whether it finds no adapter there."""
        return isinstance(problem, RefusedError) and problem.status == 404 and NO_ADAPTER in problem.message


class FullWeightsPush(WeightPush):
    """All weights: vLLM's development endpoints reload them from a directory."""

    @property
    def model(self) -> str:
        """The base model's name: its weights are replaced."""
        return self.base_model

    @property
    def cache_salt(self) -> str:
        """The version's label: a request that nobody waits for any more may fill the cache after it was reset."""
        return self.served.label

    @property
    def how_to_start(self) -> str:
        """How to start vLLM with the development endpoints, for messages."""
        return WEIGHTS_HOW

    async def load(self, root: str, new: PushedVersion) -> None:
        """Replace the weights while nothing is computed, forget what was with the old ones, and label the new ones.

        The old label goes first: should this end half-way, the replica counts as having no version.
        """
        async with self._paused(root):
            await self._replace(root, new)

    async def _replace(self, root: str, new: PushedVersion) -> None:
        arguments: dict[str, JsonValue] = {"weights_path": new.path}
        await self.client.post_to(root, "/update_weight_version", {"new_version": f"{new.label}-loading"})
        await self.client.post_to(root, "/collective_rpc", {"method": "reload_weights", "kwargs": arguments})
        await self.client.post_to(root, "/reset_prefix_cache", {})
        await self.client.post_to(root, "/update_weight_version", {"new_version": new.label})

    @asynccontextmanager
    async def _paused(self, root: str) -> AsyncIterator[None]:
        """Once what a replica computes has ended, until the block ends; a vLLM without a pause goes on meanwhile."""
        paused = True
        try:
            try:
                await self.client.post_to(root, "/pause?mode=wait", {})
            except RefusedError as error:
                paused = error.status not in NO_SUCH_ENDPOINT
                if paused:
                    raise
            yield
        except asyncio.CancelledError:
            if paused:
                paused = False
                with suppress(
                    RefusedError, UnansweredError
                ):  # it is ended all the same; the next run says what is left
                    await self._resume(root)
            raise
        finally:
            if paused:
                await self._resume(root)

    async def _resume(self, root: str) -> None:
        """In bounded time, since a run that is ended passes here too.

        Until a pause has begun everywhere, several data-parallel engines answer 500 (`DPEngineCoreProc`, vLLM 0.32).
        """
        said = "no answer to /resume"
        try:
            async with asyncio.timeout(RESUME_SECONDS):
                while True:
                    try:
                        await self.client.post_to(root, "/resume", {})
                        return
                    except RefusedError as error:
                        if error.status != SERVER_ERROR:
                            raise
                        said = f"/resume was answered {error.status}: {error.message}"
                    await asyncio.sleep(RESUME_EVERY)
        except TimeoutError:
            reason = f"{root}: {said} for {RESUME_SECONDS:g} s; it may still be paused"
            raise UnansweredError(reason, 1, None) from None

    def is_unseen(self, problem: LoadError) -> bool:
        """False: what a worker says of a path that it does not see has no form of its own."""
        return False

    def sampled_it_all(self, root: str, versions: frozenset[str]) -> bool:
        """Whether all weights that sampled have the current version's label."""
        return versions <= {self.served.label}

    async def unload(self, root: str, old: PushedVersion) -> None:
        """Nothing: weights are replaced, and a replica with others than the current ones is given those again."""

    async def holds(self, root: str) -> bool:
        """Whether the label is still ours: a restarted server has its own weights and none of our labels.

        One of several replicas that does not say so soon does not count; of the only one that is waited for.
        """
        if len(self.client.roots) == 1:
            result: Result | None = await self.client.get_from(root, "/weight_info")
        else:
            result = await self.client.get_once(root, "/weight_info", THERE_SECONDS)
        label = result.value.get("weight_version") if result is not None and isinstance(result.value, dict) else None
        return label == self.served.label
