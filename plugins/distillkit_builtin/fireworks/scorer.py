"""Scorer `fireworks`: a frozen teacher behind a Fireworks deployment or inference model."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar

from pydantic import Field, PrivateAttr

from distillkit import Sampler, Scorer
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.fireworks.endpoint import Endpoint
from distillkit_builtin.fireworks.owned_resources import Cleanup
from distillkit_builtin.fireworks.provision_teacher import TeacherWish
from distillkit_builtin.fireworks.requirements import access_problems, missing_extra, require, resolve_base_url
from distillkit_builtin.fireworks.scorer_check import option_problems, teacher_notes
from distillkit_builtin.fireworks.service import Service, shared_service
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.remote.as_completed import as_completed


class FireworksScorer(Scorer, Sampler):
    """A frozen teacher at Fireworks: a base model gets a deployment, made or reused; anything else is used as it is."""

    name: ClassVar[str] = "fireworks"
    volatile: ClassVar[frozenset[str]] = frozenset(
        {
            *("deployment_id", "deployment_shape", "replica_count", "deployment_timeout", "deployment_cleanup"),
            *("inference_url", "base_url", "initial_concurrency", "max_concurrency", "request_timeout"),
        }
    )

    deployment_id: str | None = Field(
        None, description="The deployment to make or reuse for a base model; null: one named after the model."
    )
    deployment_shape: str | None = Field(None, description="Its shape; null: the service's choice.")
    replica_count: int = Field(1, ge=1, description="Its replicas, where it is made or woken.")
    deployment_timeout: float = Field(5400.0, gt=0, description="Seconds for it to be ready.")
    deployment_cleanup: Cleanup = Field(
        "scale_to_zero", description="What becomes of a deployment that this run made: scale_to_zero, delete or keep."
    )
    inference_url: str | None = Field(None, description="Where completions are asked for; null: at base_url.")
    base_url: str | None = Field(None, description="The service; null: FIREWORKS_BASE_URL, else api.fireworks.ai.")
    initial_concurrency: int = Field(8, ge=1, description="Scoring requests at once at the start; adapts itself.")
    max_concurrency: int = Field(256, ge=1, description="Scoring requests at once, at most.")
    request_timeout: float = Field(600.0, gt=0, description="Seconds for one attempt to score a completion.")

    _service: Service | None = PrivateAttr(None)
    _run: RunContext | None = PrivateAttr(None)
    _endpoint: Endpoint | None = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Check options and key, ask the service for what exists; say what would be made or reused."""
        who = f"teacher {self.teacher.name!r}"
        missing = missing_extra("scorer 'fireworks'")
        base_url = resolve_base_url(self.base_url)
        require(who, [*option_problems(self), *access_problems(base_url)])
        if missing:
            return CheckReport((f"{who}: {self.teacher.model}",), missing=missing)
        self._service = shared_service(run, base_url)
        self._service.wish(self._wish())
        return CheckReport(tuple(f"{who}: {note}" for note in teacher_notes(self._service, self._wish())))

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of the teacher's `tokenizer_model`, else the student's, where that is at Fireworks too."""
        source = self.teacher.tokenizer_model
        if source == self.teacher.model:  # what the config puts where it says nothing
            source = None
        if source is None and self._service is not None and self._service.student is not None:
            source = self._service.student.tokenizer_model
        if source is None:
            raise InputError(
                f"teacher {self.teacher.name!r}: set its tokenizer_model; {self.teacher.model!r} names no tokenizer"
            )
        return shared_tokenizer(run, source)

    def context_length(self, run: RunContext) -> int | None:
        """The service does not say."""
        return None

    async def open(self, run: RunContext) -> None:
        """Wait until the teacher can be asked."""
        if self._service is None:
            raise RuntimeError("FireworksScorer is opened before it was checked")
        self._run = run
        await self._service.enter(run)
        self._endpoint = await self._service.teacher(self._wish().key)

    async def close(self) -> None:
        """Clean up what the run made, with the last plugin that uses the service."""
        self._endpoint = None
        if self._service is not None and self._run is not None:
            await self._service.leave(self._run)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score completions; the SDK retries and limits each request itself."""
        from distillkit_builtin.fireworks.completions import judge

        endpoint = self._open_endpoint()

        async def one(request: ScoreRequest) -> Score | Failure:
            return await judge(endpoint, request, self.request_timeout)

        async for outcome in as_completed(requests, one):
            yield outcome

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions, for evaluators."""
        from distillkit_builtin.fireworks.completions import draw

        endpoint, tokenizer = self._open_endpoint(), self.tokenizer(self._open_run())

        async def one(request: SampleRequest) -> Rollout | Failure:
            return await draw(endpoint, request, 0, tokenizer, self.request_timeout)

        async for outcome in as_completed(requests, one):
            yield outcome

    async def sync(self, weights: Weights) -> None:
        """Nothing: this teacher is frozen."""

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/<slug>/window` and so on; routes to one deployment share it, and the first one tells."""
        return {} if self._service is None else self._service.concurrency_metrics(self.teacher.slug)

    def _open_endpoint(self) -> Endpoint:
        if self._endpoint is None:
            raise RuntimeError("FireworksScorer is used before open() or after close()")
        return self._endpoint

    def _open_run(self) -> RunContext:
        if self._run is None:
            raise RuntimeError("FireworksScorer is used before open()")
        return self._run

    def _wish(self) -> TeacherWish:
        return TeacherWish(
            model=self.teacher.model,
            deployment_id=self.deployment_id,
            deployment_shape=self.deployment_shape,
            replica_count=self.replica_count,
            timeout=self.deployment_timeout,
            cleanup=self.deployment_cleanup,
            inference_url=self.inference_url,
            initial_concurrency=self.initial_concurrency,
            max_concurrency=self.max_concurrency,
            slug=self.teacher.slug,
        )
