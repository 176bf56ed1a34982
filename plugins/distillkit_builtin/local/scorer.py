"""Scorer `local`: a frozen teacher in this process."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PrivateAttr

from distillkit import Sampler, Scorer
from distillkit.context import RunContext
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.local.fingerprint import model_fingerprint
from distillkit_builtin.local.requirements import (
    FORWARD,
    DeviceName,
    DTypeName,
    ForwardName,
    context_length,
    local_report,
    require_config,
)

if TYPE_CHECKING:
    from distillkit_builtin.local.live_teacher import LiveLocalTeacher
    from distillkit_builtin.local.ranks.data_parallel import DataParallelTeacher


class LocalScorer(Scorer, Sampler):
    """A frozen teacher in this process; shares the student's base where both are the same model on the same device."""

    name: ClassVar[str] = "local"
    whole_windows: ClassVar[bool] = True
    volatile: ClassVar[frozenset[str]] = frozenset({"device", "micro_batch_tokens", "forward"})

    device: DeviceName = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    dtype: DTypeName = Field("auto", description="What is computed in; auto: bfloat16 where the device is fast in it.")
    micro_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="At most this many (padded) tokens are scored at once; null: 16,384 on cuda, else 8,192.",
    )

    forward: ForwardName = Field("auto", description=FORWARD)

    _teacher_model: "LiveLocalTeacher | DataParallelTeacher | None" = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Read the model's config; say what will be loaded."""
        require_config(self.teacher.model)
        return local_report(self.teacher.model, f"teacher {self.teacher.name!r}", self.device, self.dtype, run=run)

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`, or of the model."""
        return shared_tokenizer(run, self.teacher.tokenizer_model or self.teacher.model)

    def context_length(self, run: RunContext) -> int | None:
        """As the model's config says."""
        return context_length(self.teacher.model)

    def fingerprint(self) -> Mapping[str, str]:
        """Of config and weights."""
        return model_fingerprint(self.teacher.model)

    async def open(self, run: RunContext) -> None:
        """Load the model, or share one that is there."""
        from distillkit_builtin.local.live_teacher import TeacherOptions
        from distillkit_builtin.local.ranks.data_parallel import open_teacher

        options = TeacherOptions(self.teacher, self.device, self.dtype, self.micro_batch_tokens, self.forward)
        self._teacher_model = await open_teacher(run, options)

    async def close(self) -> None:
        """Forget the model; the run frees it after its last user."""
        self._teacher_model = None

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score in micro-batches of similar length."""
        async for score in self._open_model().score(requests):
            yield score

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions, for evaluators."""
        async for rollout in self._open_model().sample(requests):
            yield rollout

    async def sync(self, weights: Weights) -> None:
        """Nothing: this teacher is frozen."""

    def _open_model(self) -> "LiveLocalTeacher | DataParallelTeacher":
        if self._teacher_model is None:
            raise RuntimeError("LocalScorer is used before open() or after close()")
        return self._teacher_model
