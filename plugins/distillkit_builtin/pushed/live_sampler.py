"""The live side of a sampler whose servers are given the student's weights: its client, and the version they have."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import PluginError
from distillkit.frozen import frozen
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.types import SampleRequest
from distillkit_builtin.http.completions import failure_of
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery, TokenLogprobs
from distillkit_builtin.http.frozen_teachers import require_not_replaced, require_replaceable
from distillkit_builtin.http.model_requests import as_score, sample_completion, score_tokens
from distillkit_builtin.http.raw_logprobs import raw_logprob_probes, require_raw_logprobs
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.pushed.adapter_push import AdapterPush, require_no_pushed_base
from distillkit_builtin.pushed.options import PushedSamplerOptions
from distillkit_builtin.pushed.weight_push import PushedVersion, WeightPush
from distillkit_builtin.remote.as_completed import as_completed
from distillkit_builtin.remote.results import RefusedError, Result, UnansweredError, error_context
from distillkit_builtin.remote.service_client import ServiceClient

NAME = "student"
"""The sampler's name in metrics."""
TRIES = 3
"""Attempts at a completion whose server lost its weights meanwhile."""


@dataclass(slots=True)
class LivePushedSampler(ABC):
    """Completions from servers that are given each policy version."""

    options: PushedSamplerOptions
    run: RunContext
    base_model: str
    client: ServiceClient
    nonce: str
    """Of this process, in the names of all versions."""
    base_form: CompletionForm
    """How the servers are asked for completions of their base model."""
    base_versions: Mapping[str, str] = field(default_factory=lambda: frozen({}))
    """What each server called its base model's weights when the run started; empty where answers do not say it."""
    server_version: str | None = None
    weight_push: WeightPush | None = None

    plugin: ClassVar[str]
    """The sampler's name in configs."""
    dialect: ClassVar[Dialect]
    """How the servers are asked for scores."""

    @abstractmethod
    def push_of(self, weights: Weights) -> type[WeightPush]:
        """How weights of this format are pushed."""

    @abstractmethod
    def is_lost(self, error: RefusedError, path: str) -> bool:
        """Whether a server refuses a request at `path` since it does not have the version any more.

        Raises EndpointGoneError where it has that endpoint no more, and it can be done without.
        """

    @abstractmethod
    async def is_current(self, result: Result, request: SampleRequest | ScoreRequest, path: str, seen: int) -> bool:
        """Whether the current version's weights made a result of `path`.

        It was asked for when the server's `repairs` was `seen`.
        """

    @property
    def form(self) -> CompletionForm:
        """How the servers are asked for completions of the current version."""
        return self.base_form

    async def close(self) -> None:
        """Unload the last adapter, and one whose load was interrupted; close connections."""
        try:
            if self.weight_push is not None:
                await self._unload(self.weight_push, self.weight_push.current)
                await self._unload(self.weight_push, self.weight_push.pending)
        finally:
            await self.client.close()

    async def sync(self, weights: Weights) -> None:
        """Push the new version to every replica.

        Raises:
            PluginError: if the student writes no weights to disk.
            InputError: if a server's scores of the first adapter's completions are not the logprobs that it reported,
                or its base model has weights that a run pushed; or a teacher is served by weights that would be
                replaced.
        """
        if weights.path is None:
            raise PluginError(
                f"sampler {self.plugin!r} needs a student that writes its weights to disk; this one keeps them to "
                "itself"
            )
        if self.weight_push is None:
            kind = self.push_of(weights)
            if issubclass(kind, AdapterPush):
                require_no_pushed_base(self.plugin, self.base_versions)
            else:
                with error_context(f"sampler {self.plugin!r}"):
                    require_replaceable(self.run, self.client.roots)
            self.weight_push = kind(self.client, self.base_model, self.nonce, self.base_versions)
        old = self.weight_push.current
        absent = await self.weight_push.push(weights.version, self._server_path(weights.path))
        for reason in absent.values():
            self.run.notify(
                f"sampler {self.plugin!r}: policy version {weights.version} is not loaded at {reason}; the other "
                "servers sample meanwhile, and no completion of it counts before it has the current version",
                "warning",
            )
        if old is not None and old.label != self.weight_push.served.label:
            await self._unload(self.weight_push, old)
        if old is None:
            await self._require_right(self.weight_push)

    async def _require_right(self, first: WeightPush) -> None:
        """Raise InputError as `sync` does, for what shows only once a first version is there."""
        with error_context(f"sampler {self.plugin!r}"):
            if not isinstance(first, AdapterPush):
                await require_not_replaced(self.run, first.served.label)
                return
            for probe in raw_logprob_probes():
                await require_raw_logprobs(
                    self.client, self.form, self.dialect, first.model, probe, adapter=True, absent=first.absent
                )

    async def _unload(self, weight_push: WeightPush, old: PushedVersion | None) -> None:
        """Unload a version that is not used any more; a server that does not do it is no reason to end a run."""
        if old is None:
            return
        for reason in await weight_push.unload_old(old):
            self.run.notify(
                f"sampler {self.plugin!r}: the adapter {old.label} may still be loaded: {reason}", "warning"
            )

    def _server_path(self, path: Path) -> Path:
        ours = self.run.outer_dir or self.run.run_dir
        if self.options.server_run_dir is None or ours is None:
            return path.resolve()
        return Path(self.options.server_run_dir) / path.resolve().relative_to(ours.resolve())

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of the policy of the last sync, in order of arrival."""
        async for outcome in as_completed(requests, self._sample):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores of given tokens under the policy of the last sync, in order of arrival."""
        async for outcome in as_completed(requests, self._score):
            yield outcome

    async def _sample(self, request: SampleRequest) -> Rollout | Failure:
        weight_push = self.ready()
        version, salt = weight_push.served.version, weight_push.cache_salt
        return await sample_completion(self._send, self.form, request, weight_push.model, version, salt)

    async def _score(self, request: ScoreRequest) -> Score | Failure:
        weight_push = self.ready()
        query = ScoreQuery(
            weight_push.model,
            request.prompt_ids,
            request.token_ids,
            request.topk,
            adapter=isinstance(weight_push, AdapterPush),
            cache_salt=weight_push.cache_salt,
        )
        scored = await self.scored(request, query)
        return scored if isinstance(scored, Failure) else as_score(request, scored)

    async def scored(self, request: ScoreRequest, query: ScoreQuery) -> TokenLogprobs | Failure:
        """What a server makes of given tokens."""
        return await score_tokens(self._send, request, self.dialect, query, request.teacher)

    async def _send(
        self, request: SampleRequest | ScoreRequest, path: str, payload: Mapping[str, JsonValue]
    ) -> Result | Failure:
        """A result that was surely computed with the version's weights; a server that lost them is given them again."""
        weight_push = self.ready()
        for _ in range(TRIES):
            seen = {root: weight_push.repairs(root) for root in self.client.roots}
            try:
                result = await self.client.post(path, payload)
                if await self.is_current(result, request, path, seen[result.root]):
                    return result
                lost_by = result.root
            except RefusedError as error:
                if not self.is_lost(error, path):
                    return failure_of(request, error)
                lost_by = error.root
            except UnansweredError as error:
                return failure_of(request, error)
            await weight_push.repair(lost_by, seen[lost_by])
        return Failure(
            request,
            f"the servers lost the weights of version {weight_push.served.version} again and again",
            retryable=True,
        )

    def ready(self) -> WeightPush:
        """What was pushed. Raises RuntimeError before the first sync."""
        if self.weight_push is None:
            raise RuntimeError(f"sampler {self.plugin!r} is used before its first sync")
        return self.weight_push
