"""The live side of scorer `tinker`: one client of the SDK a teacher, shared by the routes to it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distillkit.context import RunContext
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.tokenizer import Tokenizer
from distillkit.types import Teacher
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.aimd_window import AimdWindow
from distillkit_builtin.remote.results import error_context
from distillkit_builtin.remote.service_client import loop_time
from distillkit_builtin.tinker.options import TinkerScorerOptions
from distillkit_builtin.tinker.prefill import LAST_N, TARGETS, Prefill, knows, submit
from distillkit_builtin.tinker.scored_response import Asked, read_response
from distillkit_builtin.tinker.scorer_probe import Probe, find_prefill, require_needs
from distillkit_builtin.tinker.sdk import got, load_sdk, sdk_call
from distillkit_builtin.tinker.sdk_errors import failure_of
from distillkit_builtin.tinker.served_teacher import ServedTeacher
from distillkit_builtin.tinker.service import TinkerService


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
    prefill: Prefill | None = None
    """How the server is asked; None: not opened yet."""
    gives_ids: bool = False
    """Whether logprobs of given ids were asked for when it was opened, and came."""
    _client: Any = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self, run: RunContext, who: str, tokenizer: Tokenizer) -> None:
        """Make the client and find out how the server scores, once for all routes.

        Raises:
            InputError: if the server does not score given tokens, or does not give what the run needs.
            RunFailedError: if there is no client to be had.
        """
        async with self._opening:
            if self.prefill is not None:
                return
            with error_context(who):
                await self._connect()
                probe = Probe.of(tokenizer)
                last_n, targets = knows(self._client, LAST_N), knows(self._client, TARGETS)
                prefill = await find_prefill(self._ask, probe, tokenizer, run.notify_as(who), last_n=last_n)
                await require_needs(self._ask, probe, prefill, run.scorer_needs, targets=targets)
            self.gives_ids = "at_ids" in run.scorer_needs
            self.prefill = prefill

    async def score(self, request: ScoreRequest) -> Score | Failure:
        """The logprobs of one response. Raises AlignmentError for an answer that is not of its tokens."""
        if self.prefill is None:
            raise RuntimeError("a TinkerTeacher scores after open()")
        asked = Asked(len(request.prompt_ids), request.token_ids, request.topk, request.at_ids)
        ids = [*request.prompt_ids.tolist(), *request.token_ids.tolist()]
        async with self.admission.slot(self.admission.ticket()):
            try:
                answer = await self._ask(ids, asked, self.prefill.last_n)
            except Exception as error:  # noqa: BLE001 - read there, and raised again if it is not of this request alone
                return failure_of(request, error, self.seconds)
        what = f"score of {request.key} by teacher {request.teacher!r} at {self.service.root}"
        found = read_response(what, answer, asked, self.prefill.leading)
        return Score(request, found.logprobs, None, arrays=found.arrays)

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/<slug>/window` (requests at once, at most) and `inflight` (the most since the last call)."""
        admission = self.admission
        values = {"window": admission.window.size, "inflight": admission.take_peak()}
        return {f"concurrency/{self.slug}/{name}": float(value) for name, value in values.items()}

    async def _connect(self) -> None:
        def create() -> Any:  # noqa: ANN401 - the SDK's future, or its client
            return self.service.client().create_sampling_client(**self.served.source)

        self._client = await sdk_call(f"opening {self.served.model!r}", self.seconds, create)

    async def _ask(self, ids: Sequence[int], asked: Asked, last_n: bool) -> Any:  # noqa: ANN401 - the SDK's SampleResponse
        return await got(submit(load_sdk(), self._client, ids, asked, last_n=last_n), self.seconds)


def shared_teacher(
    run: RunContext, teacher: Teacher, service: TinkerService, served: ServedTeacher, options: TinkerScorerOptions
) -> TinkerTeacher:
    """The run's one live side of this model at this server; routes with other limits have one of their own."""
    key = ("tinker teacher", service.root, service.key_variable, served.model, options.timeouts, options.concurrency)
    most = options.concurrency.max
    make = partial(TinkerTeacher, service, served, options.timeouts.request, teacher.slug)
    return run.share(key, lambda: make(Admission(AimdWindow(most, most, loop_time))))
