"""The plugin side of a sampler whose servers are given the student's weights at each sync."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler
from distillkit.context import RunContext
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.types import SampleRequest
from distillkit_builtin.http.frozen_teachers import require_replaceable
from distillkit_builtin.http.models import ServedModel
from distillkit_builtin.published_weights import are_whole
from distillkit_builtin.pushed.options import PushedSamplerOptions
from distillkit_builtin.remote.results import error_context

if TYPE_CHECKING:
    from distillkit_builtin.pushed.live_sampler import LivePushedSampler


class PushedSampler(PushedSamplerOptions, Sampler):
    """Completions from servers that serve the student's base model; each sync pushes the LoRA, or all weights."""

    libraries: ClassVar[frozenset[str]] = frozenset({"httpx"})

    _served: ServedModel | None = PrivateAttr(None)
    _live: "LivePushedSampler | None" = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Ask the server what it serves.

        Raises InputError if it gives no result or serves another model, or if it serves a teacher whose weights the
        student's would replace.
        """
        with error_context(f"sampler {self.name!r}"):
            if are_whole(run):
                require_replaceable(run, self.roots)
            served, root = self.find_served()
        self._served = served
        replicas = f" and {len(self.roots) - 1} more" if len(self.roots) > 1 else ""
        return CheckReport((f"sampler: {served.id} at {root}{replicas}",))

    @abstractmethod
    def find_served(self) -> tuple[ServedModel, str]:
        """The base model, and the address of the server that was asked. Raises InputError."""

    @abstractmethod
    async def connected(self, run: RunContext, base_model: str) -> "LivePushedSampler":
        """The live side. Raises InputError if the run cannot sample from one of the servers."""

    async def open(self, run: RunContext) -> None:
        """Connect. Raises InputError if prompts do not fit a server, or its logprobs are not those at temperature 1."""
        if self._served is None:
            raise RuntimeError(f"{type(self).__name__} is opened before it was checked")
        self._live = await self.connected(run, self._served.id)

    def provenance(self) -> Mapping[str, JsonValue]:
        """What is served, where, by which version of the server, and at which endpoint it is asked for completions."""
        if self._served is None or self._live is None:
            return {}
        served = self._served.provenance(self.roots, self._live.server_version)
        return {**served, "completions": self._live.base_form.path}

    async def close(self) -> None:
        """Unload the last adapter and close connections."""
        if self._live is not None:
            live, self._live = self._live, None
            await live.close()

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of the policy of the last sync."""
        async for outcome in self._open_sampler().sample(requests):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score given tokens under the policy of the last sync, for evaluators."""
        async for outcome in self._open_sampler().score(requests):
            yield outcome

    async def sync(self, weights: Weights) -> None:
        """Push the weights to every server."""
        await self._open_sampler().sync(weights)

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/student/window` and so on."""
        return {} if self._live is None else self._live.client.metrics()

    def _open_sampler(self) -> "LivePushedSampler":
        if self._live is None:
            raise RuntimeError(f"{type(self).__name__} is used before open() or after close()")
        return self._live
