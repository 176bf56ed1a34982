"""Scorer `local`: a frozen teacher in this process."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler, Scorer
from distillkit.context import RunContext
from distillkit.memory import MemoryReport
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.local.model_files.bounded_tokenizer import model_tokenizer
from distillkit_builtin.local.model_files.fingerprint import model_fingerprint, number_format
from distillkit_builtin.local.model_files.model_config import context_length, embedding_rows, read_config
from distillkit_builtin.local.model_files.sequence_lengths import too_long, without
from distillkit_builtin.local.options import LocalScorerOptions
from distillkit_builtin.local.requirements import LIBRARIES, local_report

if TYPE_CHECKING:
    from distillkit_builtin.local.live_teacher import LiveLocalTeacher
    from distillkit_builtin.local.ranks.data_parallel import DataParallelTeacher


class LocalScorer(LocalScorerOptions, Scorer, Sampler):
    """A frozen teacher in this process; shares the student's base where both are the same model on the same device."""

    role: ClassVar[str] = "scorer"
    name: ClassVar[str] = "local"
    whole_windows: ClassVar[bool] = True
    volatile: ClassVar[frozenset[str]] = frozenset({"device", "micro_batch_tokens", "forward"})

    libraries: ClassVar[frozenset[str]] = LIBRARIES

    _live: "LiveLocalTeacher | DataParallelTeacher | None" = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Read the model's config; report what will be loaded. Raises InputError if it cannot be."""
        read_config(self.teacher.model)
        return local_report(self.teacher.model, f"teacher {self.teacher.name!r}", self.device, self.dtype, run=run)

    def memory(self, run: RunContext) -> MemoryReport | None:
        """Weights, unless another plugin of the run has them, and a micro-batch; None without a plan."""
        from distillkit_builtin.local.memory.reports import teacher_memory

        return None if run.plan is None else teacher_memory(run, run.plan, self.teacher.model, self)

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`, or of the model."""
        return model_tokenizer(run, self.teacher.tokenizer_model or self.teacher.model, self.teacher.model)

    def context_length(self, run: RunContext) -> int | None:
        """In tokens, as the model's config says, or None."""
        return context_length(self.teacher.model)

    def fingerprint(self) -> Mapping[str, str]:
        """Digests of config and weights, or the revision on the hub; and the format that is computed in."""
        return {**model_fingerprint(self.teacher.model), **number_format(self.dtype, self.device)}

    def capabilities(self) -> Mapping[str, int | None]:
        """Everything, without a limit: `topk` of more than there are tokens ends with ids of -1."""
        return {"sampled": None, "topk": None, "at_ids": None, "full": None}

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        """As student `local`: both are sampled in the same way."""
        return {"topk": None, "entropy": None}

    async def open(self, run: RunContext) -> None:
        """Load the model, or share one that the run has."""
        from distillkit_builtin.local.ranks.data_parallel import open_teacher

        # Options alone: they travel to other ranks, where the class of a plugin from a script could not be found.
        options = LocalScorerOptions(**{name: getattr(self, name) for name in LocalScorerOptions.model_fields})
        self._live = await open_teacher(run, self.teacher, options)

    def provenance(self) -> Mapping[str, JsonValue]:
        """Model, device, number format and parameters."""
        return {"model": self.teacher.model, **self._opened().provenance()}

    async def close(self) -> None:
        """Forget the model; the run frees it after its last user."""
        self._live = None

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score in micro-batches of similar length; a completion with an id that the model has no row for fails."""
        rows = embedding_rows(self.teacher.model)
        for failure in (failures := list(too_long(self.teacher.model, requests))):
            yield failure
        requests = without(requests, failures)
        largest = [int(request.rollout.token_ids.max()) for request in requests]
        for request, index in zip(requests, largest, strict=True):
            if rows is not None and index >= rows:
                yield Failure(request, f"the student sampled id {index}, and {self.teacher.model} has {rows} rows")
        known = [r for r, index in zip(requests, largest, strict=True) if rows is None or index < rows]
        async for score in self._opened().score(known):
            yield score

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions, for evaluators."""
        for failure in (failures := list(too_long(self.teacher.model, requests))):
            yield failure
        async for rollout in self._opened().sample(without(requests, failures)):
            yield rollout

    async def sync(self, weights: Weights) -> None:
        """Does nothing: this teacher is frozen."""

    def _opened(self) -> "LiveLocalTeacher | DataParallelTeacher":
        if self._live is None:
            raise RuntimeError("LocalScorer is used before open() or after close()")
        return self._live
