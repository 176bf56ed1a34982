import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

import pytest
import torch

from distillkit.records import Rollout
from distillkit.testing import make_context
from distillkit.types import SampleRequest
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.device import Cancelled, Device, shared_device
from distillkit_builtin.local.inference.generator import Generator
from distillkit_builtin.local.inference.inference_model import sample_stream
from distillkit_builtin.local.model.causal_lm import CausalLM

SOON = 20.0
"""Seconds, on a busy machine too; left alone, the work in these tests takes minutes."""
ENDLESS = 100_000
"""Tokens, or naps of 10 ms."""
Ask = Callable[..., list[SampleRequest]]


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    device = Device(torch.device("cpu"))
    yield device
    await device.close()


class Nap:
    """Work that takes minutes, and looks up now and then."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.begun = threading.Event()
        self.ended: BaseException | None = None

    def __call__(self) -> None:
        try:
            for _ in range(ENDLESS):
                self.begun.set()
                self.device.raise_if_cancelled()
                time.sleep(0.01)
        except BaseException as error:
            self.ended = error
            raise

    async def begin(self) -> "asyncio.Task[None]":
        task = asyncio.create_task(self.device.run(self))
        assert await asyncio.to_thread(self.begun.wait, 60)
        return task


async def within(seconds: float, work: object) -> object:
    return await asyncio.wait_for(work, seconds)  # type: ignore[arg-type]


async def test_cancelled_work_ends_and_the_thread_goes_on_with_the_next(device: Device) -> None:
    nap = Nap(device)
    task = await nap.begin()
    waiting = asyncio.create_task(device.run(lambda: "next"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await within(SOON, waiting) == "next"
    assert isinstance(nap.ended, Cancelled)


async def test_work_that_is_cancelled_while_it_waits_is_never_begun(device: Device) -> None:
    first, second = Nap(device), Nap(device)
    running = await first.begin()
    waiting = asyncio.create_task(device.run(second))
    await asyncio.sleep(0)
    waiting.cancel()
    running.cancel()
    await within(SOON, asyncio.gather(running, waiting, return_exceptions=True))
    await within(SOON, device.run(lambda: None))
    assert not second.begun.is_set()


async def test_closing_ends_what_runs_and_leaves_the_event_loop_free() -> None:
    device = Device(torch.device("cpu"))
    task = await Nap(device).begin()
    await within(SOON, device.close())
    with pytest.raises(Cancelled):
        await task


async def test_closing_waits_for_work_that_never_looks_up_but_not_on_the_event_loop() -> None:
    device = Device(torch.device("cpu"))
    begun, end = threading.Event(), threading.Event()

    def work_on() -> None:
        begun.set()
        end.wait()

    work = asyncio.create_task(device.run(work_on))
    assert await asyncio.to_thread(begun.wait, 60)
    closing = asyncio.create_task(device.close())
    for _ in range(10):
        await asyncio.sleep(0.01)
        assert not closing.done()
    end.set()
    await within(SOON, closing)
    await work


async def test_a_run_closes_its_device_after_the_last_user() -> None:
    run = make_context()
    device = shared_device(run, "cpu")
    assert shared_device(run, "cpu") is device
    task = await Nap(device).begin()
    await within(SOON, run.shared.release(run.user))
    with pytest.raises(Cancelled):
        await task


@pytest.fixture(params=["plain", "fast"])
async def endless(
    request: pytest.FixtureRequest, device: Device, tiny_model: str, make_generator: Callable[..., Generator]
) -> Callable[[Sequence[SampleRequest]], AsyncIterator[Rollout]]:
    """Stream completions of the tiny model, which knows no end of a turn."""
    causal_lm = await device.run(CausalLM.load, tiny_model, device, torch.float32, torch.float32)
    generator = make_generator(causal_lm, (), request.param)
    return lambda requests: sample_stream(device, generator, 0, requests, AdaptiveBatchSize(4, "completions", "x"))


async def test_a_cancelled_consumer_frees_the_device_in_mid_batch(
    device: Device, ask: Ask, endless: Callable[..., AsyncIterator[Rollout]]
) -> None:
    async def consume() -> None:
        async for _ in endless(ask(8, max_tokens=ENDLESS)):
            pytest.fail("no completion ends")

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.2)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(SOON, task)
    await within(SOON, device.run(lambda: None))
    rollouts = [rollout async for rollout in endless(ask(6))]
    assert len(rollouts) == 6


async def test_a_consumer_that_has_enough_frees_the_device(
    device: Device, ask: Ask, endless: Callable[..., AsyncIterator[Rollout]]
) -> None:
    async with aclosing(endless([*ask(1), *ask(3, max_tokens=ENDLESS)])) as rollouts:  # type: ignore[type-var]
        first = await anext(rollouts)
    assert len(first.token_ids) == 12
    await within(SOON, device.run(lambda: None))
