"""Scorer `fireworks`: a frozen teacher behind a Fireworks deployment or inference model."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler, Scorer
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport, Leftover
from distillkit.types import SampleRequest
from distillkit_builtin.fireworks.candidates import MOST_CANDIDATES
from distillkit_builtin.fireworks.completions import Endpoint, sample_completion, score_completion
from distillkit_builtin.fireworks.leftovers import leftovers_in
from distillkit_builtin.fireworks.options import FireworksScorerOptions
from distillkit_builtin.fireworks.provision_teacher import TeacherRequest
from distillkit_builtin.fireworks.requirements import (
    LIBRARIES,
    access_problems,
    missing_extra,
    require,
    resolve_base_url,
)
from distillkit_builtin.fireworks.scorer_check import option_problems, teacher_note
from distillkit_builtin.fireworks.service import FireworksService, shared_service
from distillkit_builtin.hf_tokenizer import HFTokenizer, shared_tokenizer
from distillkit_builtin.remote.as_completed import as_completed


class FireworksScorer(FireworksScorerOptions, Scorer, Sampler):
    """A frozen teacher at Fireworks: a base model gets a deployment, made or reused; anything else is used as it is."""

    role: ClassVar[str] = "scorer"
    name: ClassVar[str] = "fireworks"
    volatile: ClassVar[frozenset[str]] = frozenset(FireworksScorerOptions.model_fields)
    """Where and how long, not what: a resumed run may have them otherwise."""
    libraries: ClassVar[frozenset[str]] = LIBRARIES

    _service: FireworksService | None = PrivateAttr(None)
    _run: RunContext | None = PrivateAttr(None)
    _endpoint: Endpoint | None = PrivateAttr(None)

    @classmethod
    def leftovers(cls, run_dir: Path) -> Sequence[Leftover]:
        """Trainers and deployments that a run which was killed there left at Fireworks."""
        return leftovers_in(run_dir)

    def declare(self, run: RunContext) -> None:
        """Register the teacher with the run's service."""
        self._service = shared_service(run, resolve_base_url(self.base_url))
        self._service.declare_teacher(self._teacher_request())

    def check(self, run: RunContext) -> CheckReport:
        """Check options and key, ask the service for what exists; say what would be made or reused."""
        who = f"teacher {self.teacher.name!r}"
        missing = missing_extra("scorer 'fireworks'")
        service = self._declared()
        require(who, [*option_problems(self.teacher.model, self), *access_problems(service.base_url)], missing)
        if missing:
            return CheckReport((f"{who}: {self.teacher.model}",), missing=missing)
        notes = [f"{who}: {teacher_note(service, self._teacher_request())}"]
        if self.teacher.tokenizer_model == self.teacher.model:
            notes.append(f"{who}: without a tokenizer_model of its own, its turns are taken to end as the student's do")
        return CheckReport(tuple(notes))

    def tokenizer(self, run: RunContext) -> HFTokenizer:
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
        """Return None: the service does not say how long a context may be."""
        return None

    def capabilities(self) -> Mapping[str, int | None]:
        """`sampled`, and `topk` as far as the service goes."""
        return {"sampled": None, "topk": MOST_CANDIDATES}

    def way_out(self, need: str, amount: int, given: int) -> str:
        """Who gives more."""
        return "serve the teacher by vLLM (scorer http)" if need == "topk" else "serve the teacher locally"

    async def open(self, run: RunContext) -> None:
        """Wait until the teacher can be asked."""
        self._run = run
        provisioning = await self._declared().attach(run)
        self._endpoint = await provisioning.teacher(self._teacher_request().key)

    def provenance(self) -> Mapping[str, JsonValue]:
        """Model and service."""
        return {"model": self.teacher.model, "service": self._declared().base_url}

    async def close(self) -> None:
        """Clean up what the run made, with the last plugin that uses the service."""
        self._endpoint = None
        if self._service is not None and self._run is not None:
            await self._service.detach(self._run)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score completions; the SDK retries and limits each request itself."""
        endpoint = self._require_open()

        async def scored(request: ScoreRequest) -> Score | Failure:
            return await score_completion(endpoint, request, self.timeouts.request)

        async for outcome in as_completed(requests, scored):
            yield outcome

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions, for evaluators."""
        endpoint, tokenizer = self._require_open(), self.tokenizer(self._require_run())

        async def sampled(request: SampleRequest) -> Rollout | Failure:
            return await sample_completion(endpoint, request, 0, tokenizer, self.timeouts.request)

        async for outcome in as_completed(requests, sampled):
            yield outcome

    async def sync(self, weights: Weights) -> None:
        """Do nothing: this teacher is frozen."""

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/<slug>/window` and so on; of routes to one deployment, which share it, the first has them."""
        return {} if self._service is None else self._service.concurrency_metrics(self.teacher.slug)

    def _require_open(self) -> Endpoint:
        if self._endpoint is None:
            raise RuntimeError("FireworksScorer is used before open() or after close()")
        return self._endpoint

    def _require_run(self) -> RunContext:
        if self._run is None:
            raise RuntimeError("FireworksScorer is used before open()")
        return self._run

    def _declared(self) -> FireworksService:
        if self._service is None:
            raise RuntimeError("FireworksScorer is checked or opened before it was declared")
        return self._service

    def _teacher_request(self) -> TeacherRequest:
        return TeacherRequest.of(self.teacher.model, self.teacher.slug, self)
