"""A frozen model that scores and samples in the device's thread. Imported when it is used, since it needs torch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import torch

from distillkit.context import RunContext
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.types import SampleKey, SampleRequest, Teacher
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.local.adaptive_batch_size import PartSize, tokens_at_once
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.device import Device, resolve_dtype, shared_device
from distillkit_builtin.local.generator import Drawer, alike, drawer_for
from distillkit_builtin.local.requirements import DTypeName, ForwardName
from distillkit_builtin.local.scoring import score_stream

SAMPLE_BATCH = 64
SCORED_ON_CUDA, SCORED = 16_384, 8192
"""Tokens that are scored at once, unless the user says."""


def shared_base(run: RunContext, source: str, device: Device, dtype: torch.dtype) -> CausalLM:
    """The run's one frozen copy of a model; the student's adapter, if it is the same model, sits on top of it."""
    key = ("base", source, str(device.device), str(dtype))
    return run.share(key, lambda: CausalLM.load(source, device, dtype, dtype))


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """What a teacher is opened with."""

    teacher: Teacher
    device: str
    dtype: DTypeName
    max_tokens: int | None
    """That are scored at once; None: as the device suggests."""
    forward: ForwardName


@dataclass(slots=True)
class LiveLocalTeacher:
    """One teacher's model; `causal_lm` may carry the student's adapter, which is off whenever the teacher computes."""

    causal_lm: CausalLM
    drawer: Drawer
    device: Device
    notify: Callable[[str], None]
    scored: PartSize
    drawn: PartSize

    @classmethod
    async def open(cls, run: RunContext, options: TeacherOptions) -> "LiveLocalTeacher":
        """Load the model in the device's thread, or share one that is there."""
        teacher = options.teacher
        device = shared_device(run, options.device)
        dtype = resolve_dtype(options.dtype, device.device)
        causal_lm = await device.run(shared_base, run, teacher.model, device, dtype)
        tokenizer = shared_tokenizer(run, teacher.tokenizer_model or teacher.model)
        at_once = options.max_tokens or tokens_at_once(device.device, SCORED_ON_CUDA, SCORED)
        scored = PartSize(at_once, "tokens", "scorer.micro_batch_tokens")
        drawn = PartSize(SAMPLE_BATCH, "completions", "fewer held-out rows")
        told: list[str] = []
        drawer = await device.run(drawer_for, causal_lm, tokenizer, options.forward, told.append)
        for message in told:
            run.notify(message)
        return cls(causal_lm, drawer, device, run.notify, scored, drawn)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Scores, a micro-batch at a time."""
        async for score in score_stream(self.causal_lm, requests, self.scored):
            yield score
        self.scored.tell(self.notify)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """The teacher's own completions."""
        async for rollout in stream(self.device, self.drawer, 0, requests, self.drawn):
            yield rollout
        self.drawn.tell(self.notify)


async def stream(
    device: Device,
    drawer: Drawer,
    version: int,
    requests: Sequence[SampleRequest],
    part: PartSize,
) -> AsyncIterator[Rollout]:
    """Draw in the device's thread, `part` completions at a time, and hand on each as soon as it ends.

    When the consumer stops early, so does the batch that is being drawn.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Queue[Rollout | None] = asyncio.Queue()
    done: set[SampleKey] = set()

    def emit(rollout: Rollout) -> None:
        done.add(rollout.key)
        loop.call_soon_threadsafe(ended.put_nowait, rollout)

    async def work() -> None:
        waiting = list(requests)
        try:
            while waiting:
                same = next(alike(waiting))
                try:
                    await device.run(drawer.generate, same, part.size, version, emit)
                    done.update(request.key for request in same)
                except torch.OutOfMemoryError as error:
                    part.shrink(error, 1)
                waiting = [request for request in waiting if request.key not in done]
        finally:
            ended.put_nowait(None)

    task = asyncio.create_task(work())
    try:
        while (rollout := await ended.get()) is not None:
            yield rollout
        await task
    finally:
        task.cancel()
