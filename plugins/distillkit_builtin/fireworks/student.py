"""Student `fireworks`: trained and sampled by the managed Fireworks Training API."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler, Student
from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport, Leftover
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.fireworks.leftovers import leftovers_in
from distillkit_builtin.fireworks.live_student import LiveFireworksStudent
from distillkit_builtin.fireworks.options import FireworksStudentOptions, TrainerOptions
from distillkit_builtin.fireworks.owned_resources import STUDENT_FILE
from distillkit_builtin.fireworks.requirements import (
    LIBRARIES,
    access_problems,
    missing_extra,
    require,
    resolve_base_url,
)
from distillkit_builtin.fireworks.service import FireworksService, shared_service
from distillkit_builtin.fireworks.student_check import option_problems, student_report
from distillkit_builtin.hf_tokenizer import shared_tokenizer

VOLATILE = frozenset(
    {
        *(f"trainer.{name}" for name in TrainerOptions.model_fields if name != "training_shape_id"),
        *("deployment.deployment_id", "deployment.deployment_shape", "deployment.replica_count", "deployment.cleanup"),
        *("deployment.hot_load_transition_type", "base_url", "concurrency", "timeouts"),
        *("save_final_checkpoint", "output_model_id"),
    }
)
"""Where and how long, not what: a resumed run may have them otherwise."""


class FireworksStudent(FireworksStudentOptions, Student, Sampler):
    """A LoRA, or all weights, trained by the managed Fireworks Training API and sampled from its own deployment."""

    role: ClassVar[str] = "student"
    name: ClassVar[str] = "fireworks"
    stops_at_any_id: ClassVar[bool] = False
    volatile: ClassVar[frozenset[str]] = VOLATILE
    writes: ClassVar[frozenset[str]] = frozenset({"model", STUDENT_FILE, f".{STUDENT_FILE}.new"})
    libraries: ClassVar[frozenset[str]] = LIBRARIES

    _service: FireworksService | None = PrivateAttr(None)
    _run: RunContext | None = PrivateAttr(None)
    _live: LiveFireworksStudent | None = PrivateAttr(None)
    _context_length: int | None = PrivateAttr(None)
    _exported: bool = PrivateAttr(False)

    @classmethod
    def leftovers(cls, run_dir: Path) -> Sequence[Leftover]:
        """Trainers and deployments that a run which was killed there left at Fireworks."""
        return leftovers_in(run_dir)

    def declare(self, run: RunContext) -> None:
        """Register the student with the run's service."""
        self._service = shared_service(run, resolve_base_url(self.base_url))
        self._service.student = self

    def check(self, run: RunContext) -> CheckReport:
        """Check options and key, request the shape and what exists from the service; say what would be made."""
        missing = missing_extra("student 'fireworks'")
        service = self._declared()
        problems = [*option_problems(self), *access_problems(service.base_url)]
        if self.sampler is not None:
            problems.append(
                "it samples from its own deployment: its weights stay at the service, so student.sampler cannot get "
                "them"
            )
        require("student", problems, missing)
        if missing:
            return CheckReport((f"student: {self.model}",), missing=missing)
        report, self._context_length = student_report(self, service)
        service.context_length = self._context_length
        return report

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`."""
        return shared_tokenizer(run, self.tokenizer_model)

    def context_length(self, run: RunContext) -> int | None:
        """`max_seq_len`, else what the training shape supports."""
        return self._context_length

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        """`importance_sampling` and `cross_entropy` with several targets a token, as the service computes them."""
        return {"importance_sampling": frozenset({"ratio_log_cap"}), "cross_entropy": frozenset()}

    async def open(self, run: RunContext) -> None:
        """Make or reuse trainer and deployments, all of the run's at once, and wait until they are there."""
        self._run = run
        self._live = await LiveFireworksStudent.open(run, self, self._declared())

    def provenance(self) -> Mapping[str, JsonValue]:
        """Model, service, trainer and deployment."""
        connection = self._require_live().connection
        return {
            "model": self.model,
            "service": self._declared().base_url,
            "trainer": connection.trainer_job,
            "deployment": connection.deployment,
            "deployment_shape": connection.deployment_shape,
            "lora_rank": self.lora_rank,
        }

    async def close(self) -> None:
        """Clean up what the run made, with the last plugin that uses the service.

        Raises:
            RunFailedError: if something could not be cleaned up and the run itself ended well.
        """
        self._live = None
        if self._service is None or self._run is None:
            return
        problems = await self._service.detach(self._run)
        if problems and self._exported:
            raise RunFailedError("\n".join(["the run ended well, but its clean-up failed:", *problems]))

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step."""
        return await self._require_live().train(batch)

    async def publish(self, version: int) -> Weights:
        """Hot-load the current weights into the student's deployment."""
        return await self._require_live().publish(version)

    async def sync(self, weights: Weights) -> None:
        """Sample as this version from now on."""
        await self._require_live().sync(weights)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Sample completions from the policy of the last sync."""
        async for outcome in self._require_live().sample(requests):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score given tokens under the policy of the last sync, for evaluators."""
        async for outcome in self._require_live().score(requests):
            yield outcome

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/student/window` and so on."""
        return {} if self._service is None else self._service.concurrency_metrics("student")

    async def save(self, path: Path) -> None:
        """The service saves weights and optimizer; `path` gets a record of where."""
        await self._require_live().save(path)

    async def load(self, path: Path) -> None:
        """Take back what `save` wrote, from whichever trainer has it."""
        await self._require_live().load(path)

    async def export(self, run_dir: Path) -> Path:
        """`model/`, which says where the final weights are; they are saved, and promoted if that is requested."""
        path = await self._require_live().export(run_dir)
        self._exported = True
        return path

    def _require_live(self) -> LiveFireworksStudent:
        if self._live is None:
            raise RuntimeError("FireworksStudent is used before open() or after close()")
        return self._live

    def _declared(self) -> FireworksService:
        if self._service is None:
            raise RuntimeError("FireworksStudent is checked or opened before it was declared")
        return self._service
