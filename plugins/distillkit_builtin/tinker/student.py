"""Student `tinker`: a LoRA, trained and sampled at a server that speaks the Tinker protocol."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler, Student
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.remote.results import error_context
from distillkit_builtin.tinker.options import TinkerOptions, TinkerStudentOptions
from distillkit_builtin.tinker.sdk import LIBRARIES, missing_extra, sdk_version
from distillkit_builtin.tinker.service import TinkerService, shared_service
from distillkit_builtin.tinker.student_check import require_options, unverified_notes

if TYPE_CHECKING:
    from distillkit_builtin.tinker.live_student import LiveTinkerStudent


class TinkerStudent(TinkerStudentOptions, Student, Sampler):
    """A LoRA at Tinker, SkyRL or another such server, trained and sampled there."""

    role: ClassVar[str] = "student"
    name: ClassVar[str] = "tinker"
    volatile: ClassVar[frozenset[str]] = frozenset({*TinkerOptions.model_fields, "timeouts", "checkpoint_ttl"})
    """Where and how long, not what: a resumed run may have them otherwise."""
    writes: ClassVar[frozenset[str]] = frozenset({"adapter", "model"})
    libraries: ClassVar[frozenset[str]] = LIBRARIES

    _service: TinkerService | None = PrivateAttr(None)
    _live: "LiveTinkerStudent | None" = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Ask the server whether it is up, has the model, and reads what the options ask for."""
        missing = missing_extra("student 'tinker'")
        if self.sampler is not None:
            raise InputError(
                "student: it samples from the server that trains it: its weights stay there, so student.sampler cannot "
                "get them"
            )
        self._service = shared_service(run, self)
        with error_context("student"):
            facts = self._service.ask()
        require_options(self, facts)
        note = f"student: {self.model}, LoRA of rank {self.lora_rank}, at {self._service.root}"
        return CheckReport((note, *unverified_notes(self, facts)), missing=missing)

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`, else that of the model's name."""
        try:
            return shared_tokenizer(run, self.tokenizer_source)
        except InputError as error:
            if self.tokenizer_model is not None:
                raise
            raise InputError(f"{error}; set student.tokenizer_model to the model's directory or hub name") from error

    def context_length(self, run: RunContext) -> int | None:
        """`max_seq_len`, else what the server says of the model, but for the token that is sampled behind a score."""
        facts = None if self._service is None else self._service.facts
        length = None if facts is None else facts.lengths.get(self.model)
        return self.max_seq_len or (None if length is None else length - 1)

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        """`importance_sampling`, which takes no options in this protocol.

        Other names of its losses clip as none of ours do; `cross_entropy` with several targets a token is Tinker's
        alone.
        """
        return {"importance_sampling": frozenset()}

    async def open(self, run: RunContext) -> None:
        """Begin a session, and measure what the server divides gradients by, where the run trains."""
        from distillkit_builtin.tinker.live_student import LiveTinkerStudent

        if self._service is None:
            raise RuntimeError("TinkerStudent is opened before it was checked")
        self._live = await LiveTinkerStudent.open(run, self, self._service)

    def provenance(self) -> Mapping[str, JsonValue]:
        """Model, server, SDK, the LoRA's size, and what the server divides gradients by, where that was measured."""
        live = self._require_live()
        facts: dict[str, JsonValue] = {
            "model": self.model,
            "service": live.connection.service.root,
            "sdk": sdk_version(),
            "lora_rank": self.lora_rank,
            "lora_alpha": 32,
        }
        if live.scale is None:
            return facts
        return {
            **facts,
            "gradients_divided_by_tokens": live.scale.by_tokens,
            "gradients_divided_by_sequences": live.scale.by_sequences,
            "gradients_measured": live.scale.measured,
        }

    async def close(self) -> None:
        """Unload the model, where the server can. The session ends with the last plugin that uses the service."""
        live, self._live = self._live, None
        if live is not None:
            await live.close()

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step."""
        return await self._require_live().train(batch)

    async def publish(self, version: int) -> Weights:
        """Take a snapshot of the current weights, to sample from."""
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
        """`concurrency/student/window` and `inflight`."""
        return {} if self._live is None else self._live.metrics()

    async def save(self, path: Path) -> None:
        """The server saves weights and optimizer; `path` gets a record of where."""
        await self._require_live().save(path)

    async def load(self, path: Path) -> None:
        """Take back what `save` wrote, in a new model at the server."""
        await self._require_live().load(path)

    async def export(self, run_dir: Path) -> Path:
        """`adapter/`, which PEFT loads whole; or `model/`, which says where the final weights are, and why."""
        return await self._require_live().export(run_dir)

    def _require_live(self) -> "LiveTinkerStudent":
        if self._live is None:
            raise RuntimeError("TinkerStudent is used before open() or after close()")
        return self._live
