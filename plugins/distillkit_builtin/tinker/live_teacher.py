"""The live side of scorer `tinker`: one client of the SDK a teacher, shared by the routes to it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distillkit.context import Notify, RunContext
from distillkit.errors import RunFailedError
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest, Teacher
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.aimd_window import AimdWindow
from distillkit_builtin.remote.blocking_calls import start_in_thread
from distillkit_builtin.remote.results import error_context
from distillkit_builtin.remote.service_client import loop_time
from distillkit_builtin.tinker.completions import Endpoint, sample_completion
from distillkit_builtin.tinker.options import TinkerScorerOptions
from distillkit_builtin.tinker.prefill import LAST_N, SAMPLE_REQUEST, TARGETS, Prefill, knows
from distillkit_builtin.tinker.raw_probe import reports_raw_logprobs
from distillkit_builtin.tinker.scored_response import Asked, read_response
from distillkit_builtin.tinker.scorer_probe import Probe, find_prefill, gives_topk, is_refusal, require_needs
from distillkit_builtin.tinker.sdk import load_sdk, retry_config, sdk_call
from distillkit_builtin.tinker.sdk_errors import failure_of, refused_input
from distillkit_builtin.tinker.served_teacher import ServedTeacher
from distillkit_builtin.tinker.service import TinkerService

RESCORED = (
    "the server reports logprobs of the distribution that it samples from, not the model's own; completions of the "
    "teacher that are sampled otherwise than at temperature 1 from all tokens are scored once more each"
)


@dataclass(frozen=True, slots=True)
class OpenTeacher:
    """What there is once the server was asked."""

    endpoint: Endpoint
    prefill: Prefill
    """How it is asked for logprobs of a response."""
    topk: bool
    """Whether the server gives the most probable tokens of each position."""
    targets: bool
    """Whether the SDK can ask for logprobs of given ids."""
    tokenizer: Tokenizer
    tell: Notify
    """As the teacher of the route that opened it."""


@dataclass(slots=True)
class TinkerTeacher:
    """One teacher's model at one server. Nothing is sent a second time: the SDK tries again by itself."""

    service: TinkerService
    served: ServedTeacher
    seconds: float
    """For one request, with the SDK's own retries and the server's queue."""
    slug: str
    """Of the route that made it, whose metrics have what is measured of all that share it."""
    admission: Admission
    opened: OpenTeacher | None = None
    _samples: bool = False
    """Whether it is known which logprobs come with what it samples."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self, run: RunContext, who: str, tokenizer: Tokenizer) -> None:
        """Make the client and find out how the server scores, once for all routes.

        Raises:
            InputError: if the server does not score given tokens, or does not give what the run needs.
            RunFailedError: if there is no client to be had.
        """
        async with self._lock:
            if self.opened is None:
                with error_context(who):
                    self.opened = await self._open(run, run.notify_as(who), tokenizer)
        if run.plan is None or run.plan.eval_teacher_tokens:
            with error_context(who):
                await self._prepare_sampling(self.opened)

    async def score(self, request: ScoreRequest) -> Score | Failure:
        """The logprobs of one response. Raises AlignmentError for an answer that is not of its tokens."""
        opened = self._require_open()
        asked = Asked(len(request.prompt_ids), request.token_ids, request.topk, request.at_ids)
        ids = [*request.prompt_ids.tolist(), *request.token_ids.tolist()]
        try:
            answer = await opened.endpoint.prefill(ids, asked, last_n=opened.prefill.last_n)
        except Exception as error:  # noqa: BLE001 - read there, and raised again if it is not of this request alone
            return failure_of(request, error, self.seconds)
        what = f"score of {request.key} by teacher {request.teacher!r} at {self.service.root}"
        found = read_response(what, answer, asked, opened.prefill.leading)
        return Score(request, found.logprobs, None, arrays=found.arrays)

    async def sample(self, request: SampleRequest) -> Rollout | Failure:
        """One completion of the teacher's own. Raises AlignmentError if ids or logprobs are not those of one."""
        opened = self._require_open()
        await self._prepare_sampling(opened)
        return await sample_completion(opened.endpoint, request, 0, opened.tokenizer)

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/<slug>/window` (requests at once, at most) and `inflight` (the most since the last call)."""
        values = {"window": self.admission.window.size, "inflight": self.admission.take_peak()}
        return {f"concurrency/{self.slug}/{name}": float(value) for name, value in values.items()}

    async def _open(self, run: RunContext, tell: Notify, tokenizer: Tokenizer) -> OpenTeacher:
        sdk = await start_in_thread(load_sdk, "tinker: import")
        endpoint = Endpoint(sdk, await self._client(), self.admission, self.seconds)

        async def ask(ids: Sequence[int], asked: Asked, last_n: bool) -> Any:  # noqa: ANN401 - the SDK's SampleResponse
            return await endpoint.prefill(ids, asked, last_n=last_n)

        probe = Probe.of(tokenizer)
        ignored = self.service.facts is not None and self.service.facts.ignores(SAMPLE_REQUEST, LAST_N)
        last_n, targets = not ignored and knows(endpoint.client, LAST_N), knows(endpoint.client, TARGETS)
        prefill = await find_prefill(ask, probe, tokenizer, tell, last_n=last_n)
        await require_needs(ask, probe, prefill, run.scorer_needs, targets=targets)
        topk = bool(run.scorer_needs.get("topk")) or await gives_topk(ask, probe, prefill)
        return OpenTeacher(endpoint, prefill, topk, targets, tokenizer, tell)

    async def _client(self) -> Any:  # noqa: ANN401 - the SDK's SamplingClient
        def create() -> Any:  # noqa: ANN401 - the SDK's future of one, or one
            retries = retry_config(self.seconds)
            return self.service.client().create_sampling_client(**self.served.source, retry_config=retries)

        doing = f"opening {self.served.model!r}"
        try:
            return await sdk_call(doing, self.seconds, create)
        except RunFailedError as error:
            if isinstance(error.__cause__, Exception) and is_refusal(error.__cause__):
                raise refused_input(doing, error.__cause__) from error  # of a path that is not there, for one
            raise

    async def _prepare_sampling(self, opened: OpenTeacher) -> None:
        """Find out which logprobs come with what it samples, where it samples at all. Raises InputError."""
        async with self._lock:
            if self._samples:
                return
            opened.endpoint.raw = await reports_raw_logprobs(opened.endpoint, self.served.model)
            if not opened.endpoint.raw:
                opened.tell(RESCORED)
            self._samples = True

    def _require_open(self) -> OpenTeacher:
        if self.opened is None:
            raise RuntimeError("a TinkerTeacher is asked after open()")
        return self.opened


def shared_teacher(
    run: RunContext, teacher: Teacher, service: TinkerService, served: ServedTeacher, options: TinkerScorerOptions
) -> TinkerTeacher:
    """The run's one live side of this model at this server; routes with other limits have one of their own."""
    key = ("tinker teacher", service.root, service.key_variable, served.model, options.timeouts, options.concurrency)
    most = options.concurrency.max
    make = partial(TinkerTeacher, service, served, options.timeouts.request, teacher.slug)
    return run.share(key, lambda: make(Admission(AimdWindow(most, most, loop_time))))
