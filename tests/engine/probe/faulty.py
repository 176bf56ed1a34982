"""Scorers and students of the fakes, each with one fault that a probe must find, and a config that runs them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import JsonValue, PrivateAttr

from distillkit import Registry, RunConfig
from distillkit.arrays import FloatArray, logprob_array, token_ids
from distillkit.context import RunContext
from distillkit.preflight.prepared_run import PreparedRun, prepare_run
from distillkit.probe.report import ProbeReport
from distillkit.probe.without_run import probed
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent
from distillkit.tokenizer import Tokenizer, TurnEnds
from distillkit.types import SampleRequest

Make = Callable[..., RunConfig]
LIKES = "abcdefgh"
LONG = {"completions_per_prompt": 1, "max_completion_tokens": 400}
"""Nearly every completion of the untrained fake student has ended by then."""


def config_of(fake_config: Make, scorer: FakeScorer | None = None, **over: object) -> RunConfig:
    teachers = [{"model": "t", "scorer": scorer if scorer is not None else FakeScorer(likes=LIKES)}]
    return fake_config(**{"teachers": teachers, "sampling": LONG, **over})


async def report_of(config: RunConfig, registry: Registry) -> ProbeReport:
    return await probed(prepared(config, registry), print)


def prepared(config: RunConfig, registry: Registry) -> PreparedRun:
    return prepare_run(config, registry, print)


def levels(report: ProbeReport) -> dict[str, str]:
    return {verdict.what: verdict.level for verdict in report.verdicts}


class FaultyScorer(FakeScorer):
    """Adds an offset to a fake's scores, which depends on more than the tokens."""

    size: float = 1.0
    _calls: int = PrivateAttr(0)

    def offset(self, requests: Sequence[ScoreRequest], place: int, tokens: int) -> FloatArray | float:
        raise NotImplementedError

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        place = 0
        async for score in super().score(requests):
            assert isinstance(score, Score)
            down = np.minimum(0, score.logprobs - 5 + self.offset(requests, place, len(score.logprobs)))
            yield replace(score, logprobs=logprob_array(down))
            place += 1
            self._calls += 1


class JitteringScorer(FaultyScorer):
    name: ClassVar[str] = "jitter"

    def offset(self, requests: Sequence[ScoreRequest], place: int, tokens: int) -> FloatArray:
        noise: FloatArray = np.random.default_rng(self._calls).normal(0, self.size, tokens).astype(np.float32)
        return noise


class OrderedScorer(FaultyScorer):
    """Is off by what it was asked last, in one direction or the other."""

    name: ClassVar[str] = "order"
    _last: int = PrivateAttr(0)

    def offset(self, requests: Sequence[ScoreRequest], place: int, tokens: int) -> float:
        before, self._last = self._last, tokens
        return self.size * (-1) ** before

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Those that come at once are not scored in their order, as on a server that is asked concurrently."""
        async for score in super().score(requests[1:] + requests[:1]):
            yield score


class GraduallyOrderedScorer(OrderedScorer):
    """The same by degrees, so that nearly no two requests before leave the same behind."""

    name: ClassVar[str] = "gradual"

    def offset(self, requests: Sequence[ScoreRequest], place: int, tokens: int) -> float:
        before, self._last = self._last, tokens
        return self.size * (before % 101) / 101


class CompanyScorer(FaultyScorer):
    """Depends on how many are scored at once."""

    name: ClassVar[str] = "company"

    def offset(self, requests: Sequence[ScoreRequest], place: int, tokens: int) -> float:
        return self.size if len(requests) > 1 else 0.0


class KeepingScorer(JitteringScorer):
    """Keeps its scores, as a cache does; replicas compute them, of which `three` differs."""

    name: ClassVar[str] = "keeping"
    jitters: bool = False
    names: tuple[str, ...] = ("one", "two", "three")
    _kept: dict[object, Score] = PrivateAttr(default_factory=dict)
    _replica: str = PrivateAttr("one")

    def replicas(self) -> Sequence[str]:
        return self.names

    def offset(self, requests: Sequence[ScoreRequest], place: int, tokens: int) -> FloatArray:
        constant = np.full(tokens, self.size if self._replica == "three" else 0.0, np.float32)
        return super().offset(requests, place, tokens) if self.jitters else constant

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        for request in requests:
            if request.key not in self._kept:
                async for score in super().score([request]):
                    assert isinstance(score, Score)
                    self._kept[request.key] = score
            yield self._kept[request.key]

    async def score_anew(self, requests: Sequence[ScoreRequest], replica: str) -> AsyncIterator[Score | Failure]:
        self._replica = replica
        async for score in JitteringScorer.score(self, requests):
            yield score


class EndsAt(ByteTokenizer):
    def __init__(self, own: int | None) -> None:
        self.own = own

    def turn_ends(self, options: Mapping[str, JsonValue]) -> TurnEnds:
        return TurnEnds(self.own)


class UnendingScorer(FakeScorer):
    """Would never end a turn where the student does."""

    name: ClassVar[str] = "unending"
    own: int | None = ByteTokenizer.turn_end
    """What its own turns end with, as its tokenizer says."""

    def tokenizer(self, run: RunContext) -> Tokenizer:
        return EndsAt(self.own)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score(requests):
            assert isinstance(score, Score)
            at_end = score.request.rollout.token_ids == ByteTokenizer.turn_end
            yield replace(score, logprobs=logprob_array(np.where(at_end, -19.0, score.logprobs)))


class TouchedStudent(FakeStudent):
    """Samples from something else than the logprobs say: the most probable tokens alone."""

    name: ClassVar[str] = "touched"
    keep: int = 1

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for rollout in super().sample(requests):
            assert isinstance(rollout, Rollout)
            ids = rollout.token_ids.copy()
            ids[:-1] %= self.keep
            if rollout.finish_reason == "length":
                ids[-1] %= self.keep
            yield replace(rollout, token_ids=token_ids(ids))


class EndlessStudent(FakeStudent):
    name: ClassVar[str] = "endless"

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for rollout in super().sample(requests):
            assert isinstance(rollout, Rollout)
            yield replace(rollout, finish_reason="length")


class NotingStudent(FakeStudent):
    """Keeps what it was asked; ends at the letter e where `stop` says so."""

    name: ClassVar[str] = "noting"
    _asked: list[SampleRequest] = PrivateAttr(default_factory=list)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        self._asked.extend(requests)
        async for rollout in super().sample(requests):
            assert isinstance(rollout, Rollout)
            found = np.flatnonzero(rollout.token_ids == ord("e"))
            if not found.size or "e" not in rollout.request.params.stop:
                yield rollout
                continue
            end = int(found[0]) + 1
            ids, logprobs = rollout.token_ids[:end], rollout.logprobs[:end]
            text = ByteTokenizer().decode(ids.tolist())
            yield replace(rollout, token_ids=ids, logprobs=logprobs, finish_reason="stop", text=text)
