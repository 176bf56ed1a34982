"""Student and teachers whose work is shared among all ranks; everything else of them is rank 0's own."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.records import Rollout, Score, ScoreRequest, Weights
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest, Teacher
from distillkit_builtin.local.batches.micro_batching import balanced_shares
from distillkit_builtin.local.device import shared_device
from distillkit_builtin.local.live_student import LiveLocalStudent, load_proved
from distillkit_builtin.local.live_teacher import LiveLocalTeacher
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.options import LocalScorerOptions, LocalStudentOptions
from distillkit_builtin.local.ranks.agreement import Ways, difference, plainest
from distillkit_builtin.local.ranks.commands import (
    ApplyGradient,
    BuildStudent,
    Command,
    ComputeGradient,
    DescribeStudent,
    DescribeTeacher,
    JoinExport,
    JoinSave,
    LoadStudent,
    OpenTeacher,
    Sample,
    ScoreTokens,
    Sync,
    TakeBroadcast,
    TakeSaved,
)
from distillkit_builtin.local.ranks.merge_streams import merge_streams
from distillkit_builtin.local.ranks.rank_fingerprint import (
    Fingerprint,
    require_alike,
    student_fingerprint,
    teacher_fingerprint,
)
from distillkit_builtin.local.ranks.worker_pool import WorkerPool, shared_worker_pool
from distillkit_builtin.local.training.trainer import GradientShare, step_result

log = logging.getLogger("distillkit")
T = TypeVar("T")


async def open_student(
    run: RunContext, options: LocalStudentOptions, *, samples: bool
) -> "LiveLocalStudent | DataParallelStudent":
    """The student on this device, or on those of all ranks; `samples`: it is its own sampler."""
    device = shared_device(run, options.device)
    workers = await shared_worker_pool(run, device)
    if workers is None:
        return await LiveLocalStudent.open(run, options, samples=samples)
    mine = await device.run(student_fingerprint, run, options, device.device)
    theirs = await workers.execute_on_all(DescribeStudent())
    require_alike([mine, *cast(list[Fingerprint], theirs)], workers.group.names)
    loaded, others = await asyncio.gather(
        load_proved(run, options, samples=samples), workers.execute_on_all(LoadStudent(run.plan))
    )
    found = [loaded.ways, *cast(list[Ways], others)]
    note, ways = difference(found, type(loaded.policy.causal_lm.model).__name__), plainest(found)
    if note is not None:
        run.notify(note)
    own, _ = await asyncio.gather(
        LiveLocalStudent.build(run, options, loaded, ways), workers.execute_on_all(BuildStudent(run.plan, ways))
    )
    await asyncio.gather(own.take_broadcast(), workers.execute_on_all(TakeBroadcast()))
    held = "whole on each" if own.policy.sharded is None else "a part on each (student.shard)"
    log.info("%d ranks, this one on %s; the student is %s", workers.group.count, own.device.device, held)
    return DataParallelStudent(own, workers)


async def open_teacher(
    run: RunContext, teacher: Teacher, options: LocalScorerOptions
) -> "LiveLocalTeacher | DataParallelTeacher":
    """A teacher on this device, or on those of all ranks."""
    device = shared_device(run, options.device)
    workers = await shared_worker_pool(run, device)
    if workers is None:
        return await LiveLocalTeacher.open(run, teacher, options)
    place = [each.name for each in run.teachers].index(teacher.name)
    mine = await device.run(teacher_fingerprint, teacher, options, device.device)
    theirs = await workers.execute_on_all(DescribeTeacher(teacher, place, options))
    require_alike([mine, *cast(list[Fingerprint], theirs)], workers.group.names)
    own, _ = await asyncio.gather(
        LiveLocalTeacher.open(run, teacher, options), workers.execute_on_all(OpenTeacher(teacher, place, options))
    )
    return DataParallelTeacher(own, workers, teacher.name)


@dataclass(frozen=True, slots=True)
class DataParallelStudent:
    """The student: every rank samples and trains its share, and all move their weights by the same gradient."""

    own: LiveLocalStudent
    workers: WorkerPool

    def provenance(self) -> dict[str, JsonValue]:
        """Rank 0's, and whether each rank has all weights."""
        held = "whole" if self.own.policy.sharded is None else "sharded"
        return {**self.own.provenance(), "ranks": self.workers.group.count, "weights": held}

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step. Raises BadStepError before any rank has moved its weights."""
        lengths = [len(datum.prompt_ids) + len(datum.response_ids) for datum in batch.datums]
        shares = [
            replace(batch, datums=tuple(batch.datums[i] for i in group))
            for group in balanced_shares(lengths, self.workers.group.count)
        ]
        if self.own.policy.sharded is None:
            gradients = await all_results(
                self.own.compute_gradient(shares[0]),
                *(self.workers.execute(rank, ComputeGradient(shares[rank])) for rank in self.workers.ranks),
            )
        else:
            parts = max(map(self._parts, shares))
            gradients = await asyncio.gather(  # which does not wait for the others when one fails: they wait for it
                self.own.compute_gradient(shares[0], parts),
                *(self.workers.execute(rank, ComputeGradient(shares[rank], parts)) for rank in self.workers.ranks),
            )
        applied, _ = await asyncio.gather(self.own.apply_gradient(), self.workers.execute_on_all(ApplyGradient()))
        return step_result(cast(Sequence[GradientShare], gradients), applied)

    async def logprobs(self, rollouts: Sequence[Rollout]) -> None:
        """Not known: the other ranks have no command for it, and would have to compute along with sharded weights."""

    async def route_gradients(self, batches: Sequence[Batch]) -> Sequence[Sequence[float]] | None:
        """By rank 0 alone, which has all weights; None where they are sharded."""
        return await self.own.route_gradients(batches)

    def _parts(self, share: Batch) -> int:
        """Micro-batches of a rank's share."""
        items = [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in share.datums]
        return max(1, len(self.own.policy.micro_batches(items, self.own.trainer.micro_batch.size)))

    async def _joined(self, work: Callable[[], Awaitable[T]], command: Command) -> T:
        """Rank 0's own work, with the others' parts where the weights are sharded: then none of them may be gone."""
        if self.own.policy.sharded is None:
            return await work()
        self.workers.require_all()
        result, _ = await asyncio.gather(work(), self.workers.execute_on_all(command))
        return result

    async def until_broken(self) -> None:
        """Waits until a rank is gone. Raises RunFailedError then."""
        await self.workers.until_broken()

    async def publish(self, version: int, *, to_disk: bool) -> Weights:
        """The current weights, of all ranks, as policy `version`."""
        work = partial(self.own.publish, version, to_disk=to_disk)
        return await (self._joined(work, JoinExport()) if to_disk else work())

    async def sync(self, weights: Weights) -> None:
        """Every rank samples from its current weights, which are the same, from now on."""
        await asyncio.gather(self.own.sync(weights), self.workers.execute_on_all(Sync(weights)))

    def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """Completions of the policy of the last sync, each when it ends."""
        return sample_on_all_ranks(self.own, self.workers, None, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Logprobs under the policy of the last sync."""
        return score_on_all_ranks(self.own, self.workers, None, requests)

    async def save(self, path: Path) -> None:
        """Write everything, whole: a checkpoint does not depend on how many ranks there were.

        Where a rank is gone this raises RunFailedError if a part of the weights was there alone.
        """
        await self._joined(partial(self.own.save, path), JoinSave())

    async def load(self, path: Path) -> None:
        """Take back what `save` wrote: rank 0 reads the file, whose disk need not be the others'."""
        saved = replace(await self.own.read_saved(path), shared=True)
        take = TakeSaved(replace(saved, tensors=None))
        await asyncio.gather(self.own.take_saved(saved), self.workers.execute_on_all(take))

    async def export(self, run_dir: Path) -> Path:
        """Write the final weights, whole, for others to use; returns their directory."""
        return await self._joined(partial(self.own.export, run_dir), JoinExport())


@dataclass(frozen=True, slots=True)
class DataParallelTeacher:
    """A teacher: every rank has all of it, and scores its share."""

    own: LiveLocalTeacher
    workers: WorkerPool
    name: str

    def provenance(self) -> dict[str, JsonValue]:
        """Rank 0's."""
        return self.own.provenance()

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """The teacher's scores, each when its rank has it."""
        return score_on_all_ranks(self.own, self.workers, self.name, requests)

    def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """The teacher's own completions, each when it ends."""
        return sample_on_all_ranks(self.own, self.workers, self.name, requests)


async def sample_on_all_ranks(
    own: LiveLocalStudent | LiveLocalTeacher,
    workers: WorkerPool,
    teacher: str | None,
    requests: Sequence[SampleRequest],
) -> AsyncIterator[Rollout]:
    """Completions, each rank's share of about as many tokens as any other's, if all were to be as long as they may."""
    lengths = [len(request.prompt_ids) + request.params.max_tokens for request in requests]
    shares = [tuple(requests[i] for i in group) for group in balanced_shares(lengths, workers.group.count)]
    others = [workers.stream(rank, Sample(teacher, shares[rank])) for rank in workers.ranks if shares[rank]]
    async for rollout in merge_streams([own.sample(shares[0]), *others]):
        yield cast(Rollout, rollout)


async def score_on_all_ranks(
    own: LiveLocalStudent | LiveLocalTeacher,
    workers: WorkerPool,
    teacher: str | None,
    requests: Sequence[ScoreRequest],
) -> AsyncIterator[Score]:
    """Scores, each rank's share of about as many tokens as any other's."""
    lengths = [len(request.prompt_ids) + len(request.token_ids) for request in requests]
    shares = [tuple(requests[i] for i in group) for group in balanced_shares(lengths, workers.group.count)]
    others = [workers.stream(rank, ScoreTokens(teacher, shares[rank])) for rank in workers.ranks if shares[rank]]
    async for score in merge_streams([own.score(shares[0]), *others]):
        yield cast(Score, score)


async def all_results(*work: Awaitable[object]) -> list[object]:
    """All results. Waits for every one, and raises the first error in their order."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
