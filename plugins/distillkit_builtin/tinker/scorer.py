"""Scorer `tinker`: a frozen teacher at a server that speaks the Tinker protocol."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler, Scorer
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.remote.as_completed import as_completed
from distillkit_builtin.remote.results import error_context
from distillkit_builtin.tinker.options import TinkerScorerOptions
from distillkit_builtin.tinker.prefill import SAMPLE_REQUEST, TARGETS
from distillkit_builtin.tinker.sdk import LIBRARIES, missing_extra, sdk_version
from distillkit_builtin.tinker.served_teacher import ServedTeacher, find_teacher
from distillkit_builtin.tinker.service import TinkerService, shared_service

if TYPE_CHECKING:
    from distillkit_builtin.tinker.live_teacher import TinkerTeacher

AT_IDS = (
    f"the server says that it reads no {TARGETS}; Tinker's own SDK documents it: serve the teacher there, by vLLM "
    "(scorer http), or locally"
)


class TinkerScorer(TinkerScorerOptions, Scorer, Sampler):
    """A frozen teacher at Tinker, SkyRL or another such server: a base model, or weights saved for a sampler."""

    role: ClassVar[str] = "scorer"
    name: ClassVar[str] = "tinker"
    volatile: ClassVar[frozenset[str]] = frozenset(TinkerScorerOptions.model_fields)
    """Where and how, not what: a resumed run may have them otherwise."""
    libraries: ClassVar[frozenset[str]] = LIBRARIES

    _service: TinkerService | None = PrivateAttr(None)
    _served: ServedTeacher | None = PrivateAttr(None)
    _live: "TinkerTeacher | None" = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Ask the server whether it is up and has the model. Raises InputError with what to do."""
        who = f"teacher {self.teacher.name!r}"
        with error_context(who):
            self._service = shared_service(run, self)
            self._served = find_teacher(self._service, self.teacher.model)
        notes = [f"{who}: {self._served.model} at {self._service.root}"]
        named = self._served.tokenizer_name
        if self._own_tokenizer() not in (None, named):
            notes.append(
                f"{who}: its ids are those of {self._own_tokenizer()!r}, and the server calls its base model "
                f"{named or 'nothing'!r}; the protocol has nothing to compare tokenizers by, so make sure of it"
            )
        return CheckReport(tuple(notes), missing=missing_extra("scorer 'tinker'"))

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`, else the one that goes by the name of its base model at the server."""
        named = None if self._served is None else self._served.tokenizer_name
        source = self._own_tokenizer() or named
        who = f"teacher {self.teacher.name!r}"
        if source is None:
            raise InputError(
                f"{who}: set its tokenizer_model; the server does not say which base model {self.teacher.model} has"
            )
        try:
            return shared_tokenizer(run, source)
        except InputError as error:
            if source != named:
                raise
            raise InputError(
                f"{who}: {source!r}, as the server calls its base model, names no tokenizer; set tokenizer_model to "
                f"the model's directory or hub name ({error})"
            ) from error

    def context_length(self, run: RunContext) -> int | None:
        """What the server says, where it does, but for the token that is sampled behind what is scored."""
        longest = None if self._served is None else self._served.longest
        return None if longest is None else longest - 1

    def capabilities(self) -> Mapping[str, int | None]:
        """`sampled`, `topk` up to `max_logprobs`, and `at_ids` unless the server says that it reads no such request.

        Whether it gives what it reads is found out at `open`, which ends a run that needs it and does not get it.
        """
        facts = None if self._service is None else self._service.facts
        opened = None if self._live is None else self._live.opened
        ignored = facts is not None and facts.ignores(SAMPLE_REQUEST, TARGETS)
        given: dict[str, int | None] = {"sampled": None}
        if opened is None or opened.topk:
            given["topk"] = self.max_logprobs
        if not ignored and (opened is None or opened.targets):
            given["at_ids"] = None
        return given

    def way_out(self, need: str, amount: int, given: int) -> str:
        """How a server gives more, or who does."""
        more = f"set max_logprobs: {amount}, if the server gives as many"
        return {"topk": more, "at_ids": AT_IDS, "full": "serve the teacher locally"}.get(need, "")

    async def open(self, run: RunContext) -> None:
        """Make the SDK's client, and find out how the server scores. Raises InputError if it does not."""
        from distillkit_builtin.tinker.live_teacher import shared_teacher

        if self._service is None or self._served is None:
            raise RuntimeError("TinkerScorer is opened before it was checked")
        self._live = shared_teacher(run, self.teacher, self._service, self._served, self)
        await self._live.open(run, f"teacher {self.teacher.name!r}", self.tokenizer(run))

    def provenance(self) -> Mapping[str, JsonValue]:
        """Model, its base, the server, the SDK, and whether prompts are left out of what is computed."""
        if self._service is None or self._served is None or self._live is None or self._live.opened is None:
            return {}
        return {
            "model": self._served.model,
            "base_model": self._served.base_model,
            "service": self._service.root,
            "sdk": sdk_version(),
            "response_only": self._live.opened.prefill.last_n,
        }

    async def close(self) -> None:
        """Let go of the client; the service closes with its last user."""
        self._live = None

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score each as soon as fewer than `concurrency.max` are under way; the SDK alone tries again."""
        async for outcome in as_completed(requests, self._open_teacher().score):
            yield outcome

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """The teacher's own completions, for evaluators."""
        async for outcome in as_completed(requests, self._open_teacher().sample):
            yield outcome

    async def sync(self, weights: Weights) -> None:
        """Do nothing: this teacher is frozen."""

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/<slug>/window` and `inflight`; of routes to one model, which share it, the first has them."""
        live = self._live
        return live.metrics() if live is not None and live.slug == self.teacher.slug else {}

    def _open_teacher(self) -> "TinkerTeacher":
        if self._live is None:
            raise RuntimeError("TinkerScorer is used before open() or after close()")
        return self._live

    def _own_tokenizer(self) -> str | None:
        """`tokenizer_model`; None where the config says nothing, and holds the model's name there."""
        source = self.teacher.tokenizer_model
        return None if source == self.teacher.model else source
