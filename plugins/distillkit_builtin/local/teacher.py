"""A frozen model that scores and samples in the device's thread. Imported when it is used, since it needs torch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from distillkit.context import RunContext
from distillkit.types import Rollout, SampleKey, SampleRequest, Score, ScoreRequest, Teacher
from distillkit_builtin.local.device import Device, resolve_dtype, shared_device
from distillkit_builtin.local.memory import PartSize
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
    notify: Callable[[str], None]
    scored: PartSize
    drawn: PartSize

    @classmethod
    async def open(
        cls, run: RunContext, teacher: Teacher, device_name: str, dtype_name: DTypeName, max_tokens: int
    ) -> "LocalTeacher":
        """Load the model in the device's thread, or share one that is there."""
        device = shared_device(run, device_name)
        dtype = resolve_dtype(dtype_name, device.device)
        network = await device.run(shared_base, run, teacher.model, device, dtype)
        tokenizer = shared_tokenizer(run, teacher.tokenizer_model or teacher.model)
        scored = PartSize(max_tokens, "tokens", "scorer.micro_batch_tokens")
        drawn = PartSize(SAMPLE_BATCH, "completions", "fewer held-out rows")
        return cls(network, tokenizer, device, run.notify, scored, drawn)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Scores, a micro-batch at a time."""
        async for score in score_stream(self.network, requests, self.scored):
            yield score
        self.scored.tell(self.notify)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """The teacher's own completions."""
        generator = Generator(self.network, self.tokenizer, eos_ids_of(self.network, self.tokenizer), policy_version=0)

        def generate(batch: Sequence[SampleRequest], emit: Callable[[Rollout], None]) -> None:
            with self.network.without_adapter():
                generator.generate(batch, emit)

        async for rollout in stream(self.device, generate, requests, self.drawn):
            yield rollout
        self.drawn.tell(self.notify)


def eos_ids_of(network: Network, tokenizer: HFTokenizer) -> frozenset[int]:
    """Every id that ends a completion: the generation config's and the tokenizer's."""
    configured = network.model.generation_config.eos_token_id if network.model.generation_config else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    return frozenset([*ids, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])])


async def stream(
    device: Device,
    generate: Callable[[Sequence[SampleRequest], Callable[[Rollout], None]], None],
    requests: Sequence[SampleRequest],
    part: PartSize,
) -> AsyncIterator[Rollout]:
    """Run `generate` in the device's thread, `part` completions at a time, and hand on each as soon as it ends.

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
                batch = next(batches(waiting, part.size))
                try:
                    await device.run(generate, batch, emit)
                    done.update(request.key for request in batch)
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


def batches(requests: Sequence[SampleRequest], size: int) -> Iterator[Sequence[SampleRequest]]:
    """At most `size` requests at a time, all drawn in the same way."""
    for _, alike in groupby(requests, key=lambda request: request.params):
        same = list(alike)
        yield from (same[start : start + size] for start in range(0, len(same), size))
