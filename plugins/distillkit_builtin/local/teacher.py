"""A frozen model that scores and samples in the device's thread. Imported when it is used, since it needs torch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from distillkit.context import RunContext
from distillkit.types import Rollout, SampleRequest, Score, ScoreRequest, Teacher
from distillkit_builtin.local.device import Device, resolve_dtype, shared_device
from distillkit_builtin.local.network import Network
from distillkit_builtin.local.requirements import DTypeName
from distillkit_builtin.local.sampling import Generator
from distillkit_builtin.local.scoring import score_stream
from distillkit_builtin.tokenizer import HFTokenizer, shared_tokenizer

SAMPLE_BATCH = 64


def shared_base(run: RunContext, source: str, device: Device, dtype: torch.dtype) -> Network:
    """The run's one frozen copy of a model; the student's adapter, if it is the same model, sits on top of it."""
    key = ("base", source, str(device.device), str(dtype))
    return run.share(key, lambda: Network.load(source, device, dtype, dtype))


@dataclass(slots=True)
class LocalTeacher:
    """One teacher's model; `network` may carry the student's adapter, which is off whenever the teacher computes."""

    network: Network
    tokenizer: HFTokenizer
    device: Device

    @classmethod
    async def open(cls, run: RunContext, teacher: Teacher, device_name: str, dtype_name: DTypeName) -> "LocalTeacher":
        """Load the model in the device's thread, or share one that is there."""
        device = shared_device(run, device_name)
        dtype = resolve_dtype(dtype_name, device.device)
        network = await device.run(shared_base, run, teacher.model, device, dtype)
        return cls(network, shared_tokenizer(run, teacher.tokenizer_model or teacher.model), device)

    async def score(self, requests: Sequence[ScoreRequest], max_tokens: int) -> AsyncIterator[Score]:
        """Scores, a micro-batch at a time."""
        async for score in score_stream(self.network, requests, max_tokens):
            yield score

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """The teacher's own completions."""
        generator = Generator(self.network, self.tokenizer, eos_ids_of(self.network, self.tokenizer), policy_version=0)

        def generate(batch: Sequence[SampleRequest], emit: Callable[[Rollout], None]) -> None:
            with self.network.without_adapter():
                generator.generate(batch, emit)

        async for rollout in stream(self.device, generate, requests, SAMPLE_BATCH):
            yield rollout


def eos_ids_of(network: Network, tokenizer: HFTokenizer) -> frozenset[int]:
    """Every id that ends a completion: the generation config's and the tokenizer's."""
    configured = network.model.generation_config.eos_token_id if network.model.generation_config else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    return frozenset([*ids, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])])


async def stream(
    device: Device,
    generate: Callable[[Sequence[SampleRequest], Callable[[Rollout], None]], None],
    requests: Sequence[SampleRequest],
    batch_size: int,
) -> AsyncIterator[Rollout]:
    """Run `generate` in the device's thread, batch by batch, and hand on each completion as soon as it ends.

    When the consumer stops early, so does the batch that is being drawn.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Queue[Rollout | None] = asyncio.Queue()

    def emit(rollout: Rollout) -> None:
        loop.call_soon_threadsafe(ended.put_nowait, rollout)

    async def work() -> None:
        try:
            for batch in batches(requests, batch_size):
                await device.run(generate, batch, emit)
        finally:
            ended.put_nowait(None)

    task = asyncio.create_task(work())
    try:
        while (rollout := await ended.get()) is not None:
            yield rollout
        await task
    finally:
        task.cancel()


def batches(requests: Sequence[SampleRequest], size: int) -> Iterator[Sequence[SampleRequest]]:
    """At most `size` requests at a time, all drawn in the same way."""
    for _, alike in groupby(requests, key=lambda request: request.params):
        same = list(alike)
        yield from (same[start : start + size] for start in range(0, len(same), size))
