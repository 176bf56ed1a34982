"""A model that samples and scores in the device's thread, for teachers and for the student."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import torch

from distillkit.context import Notify
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.types import SampleKey, SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.inference.forward_choice import choose_backbone, choose_decoder
from distillkit_builtin.local.inference.generator import Generator, by_params, generator_for
from distillkit_builtin.local.inference.kernel_packages import kernel_notes
from distillkit_builtin.local.inference.scoring import score_stream
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.option_types import ForwardName
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator


@dataclass(slots=True)
class InferenceModel:
    """A model with what computes it. It may carry the student's adapter, which is off whenever this computes."""

    causal_lm: CausalLM
    backbone: FastBackbone | None
    """None: transformers' own forward computes it."""
    generator: Generator
    known: KnownIds
    """Which ids a score's top-K is of."""
    sample_batch: AdaptiveBatchSize
    """Completions."""
    score_batch: AdaptiveBatchSize
    """Tokens."""
    notify: Notify
    _chose_decoder: bool = False

    @classmethod
    async def open(
        cls,
        causal_lm: CausalLM,
        tokenizer: HFTokenizer,
        forward: ForwardName,
        *,
        known: KnownIds,
        sample_batch: AdaptiveBatchSize,
        score_batch: AdaptiveBatchSize,
        notify: Notify,
    ) -> "InferenceModel":
        """Choose how the model is computed; how it samples, before its first completion.

        Raises InputError as `choose_backbone`.
        """
        messages: list[str] = []
        backbone = await causal_lm.device.run(choose_backbone, causal_lm, forward, messages.append)
        if backbone is None:
            name = type(causal_lm.model).__name__
            messages += (*causal_lm.batching.sampling_notes(name), *causal_lm.batching.scoring_notes(name))
        for message in (*messages, *kernel_notes(causal_lm)):
            notify(message)
        generator = generator_for(causal_lm, backbone, tokenizer)
        return cls(causal_lm, backbone, generator, known, sample_batch, score_batch, notify)

    async def choose_decoder(self) -> None:
        """Find how transformers' own forward decodes, once: a teacher that only scores need not know.

        Of weights that change this is to be asked before they do: what is found must not depend on a resume.
        """
        messages: list[str] = []
        await self.causal_lm.device.run(self._choose_decoder, messages.append)
        for message in messages:
            self.notify(message)

    def _choose_decoder(self, notify: Callable[[str], None]) -> None:
        """In the device's thread, so that whatever is sampled next is sampled so."""
        if isinstance(self.generator, PlainGenerator) and not self._chose_decoder:
            self.generator.fixed = choose_decoder(self.causal_lm, notify)
        self._chose_decoder = True

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Scores, a micro-batch at a time."""
        async for score in score_stream(self.causal_lm, self.backbone, self.known, requests, self.score_batch):
            yield score
        self.score_batch.report(self.notify)

    async def sample(self, requests: Sequence[SampleRequest], version: int) -> AsyncIterator[Rollout]:
        """Completions of policy `version`, each when it ends."""
        device = self.causal_lm.device
        await self.choose_decoder()
        async for rollout in sample_stream(device, self.generator, version, requests, self.sample_batch):
            yield rollout
        self.sample_batch.report(self.notify)
        notice = await device.run(self.generator.known.notice)
        if notice is not None:
            self.notify(notice, "warning")


async def sample_stream(
    device: Device, generator: Generator, version: int, requests: Sequence[SampleRequest], batch: AdaptiveBatchSize
) -> AsyncIterator[Rollout]:
    """Sample in the device's thread, `batch` completions at a time, and yield each as soon as it ends.

    When the consumer stops early, so does the batch that is being sampled.
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
                same = next(by_params(waiting))
                try:
                    await device.run(generator.generate, same, batch.size, version, emit)
                    done.update(request.key for request in same)
                except torch.OutOfMemoryError as error:
                    batch.shrink(error, 1)
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
