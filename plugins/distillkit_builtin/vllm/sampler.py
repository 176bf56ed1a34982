"""Sampler `vllm`: completions from vLLM servers, which are given the student's new weights at each sync."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.types import SampleRequest
from distillkit_builtin.http.models import ServedModel, find_model, served_models
from distillkit_builtin.http.options import more_logprobs
from distillkit_builtin.remote.preflight_request import send_preflight_request
from distillkit_builtin.remote.results import error_context
from distillkit_builtin.vllm.options import VllmSamplerOptions

if TYPE_CHECKING:
    from distillkit_builtin.vllm.live_sampler import LiveVllmSampler


class VllmSampler(VllmSamplerOptions, Sampler):
    """Completions from vLLM servers that serve the student's base model; each sync pushes the LoRA, or all weights."""

    name: ClassVar[str] = "vllm"
    volatile: ClassVar[frozenset[str]] = frozenset(VllmSamplerOptions.model_fields)
    libraries: ClassVar[frozenset[str]] = frozenset({"httpx"})

    _served: ServedModel | None = PrivateAttr(None)
    _live: "LiveVllmSampler | None" = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Ask the server what it serves. Raises InputError if it does not result or serves another model."""
        with error_context("sampler 'vllm'"):
            result = send_preflight_request(self, "/v1/models")
            models = served_models(result.value, result.root)
            self._served = self._base_of(models, result.root)
        replicas = f" and {len(self.roots) - 1} more" if len(self.roots) > 1 else ""
        return CheckReport((f"sampler: {self._served.id} at {result.root}{replicas}",))

    def _base_of(self, models: Sequence[ServedModel], root: str) -> ServedModel:
        """The served base model. Raises InputError if there are several and `model` names none of them."""
        bases = [model for model in models if model.parent is None]
        if self.model is not None:
            return find_model(bases, self.model, root)
        if len(bases) != 1:
            known = ", ".join(model.id for model in bases) or "none"
            raise InputError(f"{root} serves {known}; set `model` to the student's base model")
        return bases[0]

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        """`topk` up to `max_logprobs`. No entropy: top-K logprobs are only a part of it."""
        return {"topk": self.max_logprobs}

    def way_out(self, need: str, amount: int, given: int) -> str:
        """How a server gives more, or who does."""
        own = f"let the student sample by itself, which gives {need} (leave out student.sampler)"
        return more_logprobs(amount) if need == "topk" else own

    async def open(self, run: RunContext) -> None:
        """Connect. Raises InputError if prompts do not fit a server, or its logprobs are not those at temperature 1."""
        from distillkit_builtin.vllm.live_sampler import LiveVllmSampler

        if self._served is None:
            raise RuntimeError("VllmSampler is opened before it was checked")
        self._live = await LiveVllmSampler.open(run, self, self._served.id)

    def provenance(self) -> Mapping[str, JsonValue]:
        """What is served, where, by which version of vLLM, and at which endpoint it is asked for completions."""
        if self._served is None or self._live is None:
            return {}
        served = self._served.provenance(self.roots, self._live.server_version)
        return {**served, "completions": self._live.found.form.path}

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

    def _open_sampler(self) -> "LiveVllmSampler":
        if self._live is None:
            raise RuntimeError("VllmSampler is used before open() or after close()")
        return self._live
