"""Student and teachers whose work is spread over all ranks; everything else of them is rank 0's own."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from distillkit.context import RunContext
from distillkit.records import Batch, Rollout, Score, ScoreRequest, StepResult, Weights
from distillkit.types import SampleRequest
from distillkit_builtin.local.causal_lm import PromptAndResponse
from distillkit_builtin.local.device import shared_device
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.live_teacher import LiveLocalTeacher, TeacherOptions
from distillkit_builtin.local.packing import balanced
from distillkit_builtin.local.ranks.commands import (
    Apply,
    Draw,
    Gather,
    HelpToExport,
    HelpToSave,
    Load,
    OpenStudent,
    OpenTeacher,
    ScoreTokens,
    Sync,
    TakeOver,
)
from distillkit_builtin.local.ranks.messages import Order
from distillkit_builtin.local.ranks.worker_pool import WorkerPool, merged, shared_crew
from distillkit_builtin.local.trainer import Gathered, step_result

if TYPE_CHECKING:
    from distillkit_builtin.local.student import LocalStudent

log = logging.getLogger("distillkit")
T = TypeVar("T")


async def open_pupil(run: RunContext, options: "LocalStudent") -> "LiveLocalStudent | DataParallelStudent":
    """The student on this device, or on those of all ranks."""
    crew = await shared_crew(run, shared_device(run, options.device))
    if crew is None:
        return await LiveLocalStudent.open(run, options)
    own, _ = await asyncio.gather(LiveLocalStudent.open(run, options), crew.all(OpenStudent(run.plan)))
    await asyncio.gather(own.take_over(), crew.all(TakeOver()))
    held = "whole on each" if own.policy.sharded is None else "a part on each (student.shard)"
    log.info("%d ranks, this one on %s; the student is %s", crew.world.count, own.device.device, held)
    return DataParallelStudent(own, crew)


async def open_teacher(run: RunContext, options: TeacherOptions) -> "LiveLocalTeacher | DataParallelTeacher":
    """A teacher on this device, or on those of all ranks."""
    crew = await shared_crew(run, shared_device(run, options.device))
    if crew is None:
        return await LiveLocalTeacher.open(run, options)
    own, _ = await asyncio.gather(LiveLocalTeacher.open(run, options), crew.all(OpenTeacher(options)))
    return DataParallelTeacher(own, crew, options.teacher.name)


@dataclass(frozen=True, slots=True)
class DataParallelStudent:
    """The student: every rank draws and trains its share, and all move their weights by the same gradient."""

    own: LiveLocalStudent
    crew: WorkerPool

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step. Raises BadStepError before any rank has moved its weights."""
        lengths = [len(datum.prompt_ids) + len(datum.response_ids) for datum in batch.datums]
        shares = [
            replace(batch, datums=tuple(batch.datums[i] for i in group))
            for group in balanced(lengths, self.crew.world.count)
        ]
        if self.own.policy.sharded is None:
            gathered = await together(
                self.own.gather(shares[0]), *(self.crew.do(rank, Gather(shares[rank])) for rank in self.crew.ranks)
            )
        else:
            parts = max(map(self._parts, shares))
            gathered = await asyncio.gather(  # which does not wait for the others when one fails: they wait for it
                self.own.gather(shares[0], parts),
                *(self.crew.do(rank, Gather(shares[rank], parts)) for rank in self.crew.ranks),
            )
        applied, _ = await asyncio.gather(self.own.apply(), self.crew.all(Apply()))
        return step_result(cast(Sequence[Gathered], gathered), applied)

    def _parts(self, share: Batch) -> int:
        """Micro-batches of a rank's share."""
        items = [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in share.datums]
        return max(1, len(self.own.policy.micro_batches(items, self.own.trainer.part.size)))

    async def _with_help(self, work: Awaitable[T], order: Order) -> T:
        """Rank 0's own work, with the others' parts where the weights are sharded."""
        if self.own.policy.sharded is None:
            return await work
        result, _ = await asyncio.gather(work, self.crew.all(order))
        return result

    async def until_broken(self) -> None:
        """Raises RunFailedError once a rank is gone."""
        await self.crew.until_broken()

    async def publish(self, version: int, *, to_disk: bool) -> Weights:
        """Of all ranks."""
        work = self.own.publish(version, to_disk=to_disk)
        return await (self._with_help(work, HelpToExport()) if to_disk else work)

    async def sync(self, weights: Weights) -> None:
        """Every rank samples from its current weights, which are the same, from now on."""
        await asyncio.gather(self.own.sync(weights), self.crew.all(Sync(weights)))

    def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """Completions of the policy of the last sync."""
        return spread_sample(self.own, self.crew, None, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Logprobs under the policy of the last sync."""
        return spread_score(self.own, self.crew, None, requests)

    async def save(self, path: Path) -> None:
        """Everything, whole: a checkpoint does not know how many ranks there were."""
        await self._with_help(self.own.save(path), HelpToSave())

    async def load(self, path: Path) -> None:
        """Every rank reads the same file."""
        await asyncio.gather(self.own.load(path), self.crew.all(Load(path)))

    async def export(self, run_dir: Path) -> Path:
        """Everything, whole."""
        return await self._with_help(self.own.export(run_dir), HelpToExport())


@dataclass(frozen=True, slots=True)
class DataParallelTeacher:
    """A teacher: every rank has all of it, and scores its share."""

    own: LiveLocalTeacher
    crew: WorkerPool
    name: str

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Scores, as they come."""
        return spread_score(self.own, self.crew, self.name, requests)

    def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """The teacher's own completions."""
        return spread_sample(self.own, self.crew, self.name, requests)


async def spread_sample(
    own: LiveLocalStudent | LiveLocalTeacher, crew: WorkerPool, teacher: str | None, requests: Sequence[SampleRequest]
) -> AsyncIterator[Rollout]:
    """Completions, each rank's share of about as many tokens as any other's, if all were to be as long as they may."""
    lengths = [len(request.prompt_ids) + request.params.max_tokens for request in requests]
    shares = [tuple(requests[i] for i in group) for group in balanced(lengths, crew.world.count)]
    others = [crew.pieces(rank, Draw(teacher, shares[rank])) for rank in crew.ranks if shares[rank]]
    async for rollout in merged([own.sample(shares[0]), *others]):
        yield cast(Rollout, rollout)


async def spread_score(
    own: LiveLocalStudent | LiveLocalTeacher, crew: WorkerPool, teacher: str | None, requests: Sequence[ScoreRequest]
) -> AsyncIterator[Score]:
    """Scores, each rank's share of about as many tokens as any other's."""
    lengths = [len(request.prompt_ids) + len(request.rollout.token_ids) for request in requests]
    shares = [tuple(requests[i] for i in group) for group in balanced(lengths, crew.world.count)]
    others = [crew.pieces(rank, ScoreTokens(teacher, shares[rank])) for rank in crew.ranks if shares[rank]]
    async for score in merged([own.score(shares[0]), *others]):
        yield cast(Score, score)


async def together(*work: Awaitable[object]) -> list[object]:
    """All results. Waits for every one, and raises the first error in their order."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
