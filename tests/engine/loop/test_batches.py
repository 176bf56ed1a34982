"""Rows of the next step are rendered in a thread while a step is under way; what is wrong is raised when wanted."""

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import pytest

import distillkit
from distillkit import RunConfig
from distillkit.data.render import Renderer
from distillkit.data.row_pipeline import RowPipeline
from distillkit.errors import RowError
from distillkit.loop import batches
from distillkit.loop.batches import Prefetcher
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult
from distillkit.types import Prompts, Row


class Rendering:
    """Renders rows as their own names, but for one that is bad; says in which threads."""

    def __init__(self) -> None:
        self.rendered: list[str] = []
        self.threads: set[int] = set()
        self.done = threading.Event()

    def __call__(self, rows: Sequence[Row]) -> list[Prompts]:
        names = [cast(str, row) for row in rows]
        self.threads.add(threading.get_ident())
        try:
            if "bad" in names:
                raise RowError("messages", "no such thing")
            self.rendered += names
            return cast(list[Prompts], names)
        finally:
            self.done.set()


def prefetcher(*groups: list[str]) -> tuple[Prefetcher, Rendering]:
    rendering = Rendering()
    return Prefetcher(rendering, iter(cast(Any, groups))), rendering


async def rendered(rendering: Rendering) -> None:
    await asyncio.to_thread(rendering.done.wait)


async def test_prompts_come_in_order_and_then_none() -> None:
    rows, rendering = prefetcher(["a", "b"], ["c"])
    rows.prepare()
    rows.prepare()
    await rendered(rendering)
    assert rendering.rendered == ["a", "b"]
    taken = [await rows.take() for _ in range(4)]
    assert taken == [["a", "b"], ["c"], None, None]


async def test_who_was_asked_before_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler in this process needs Python when it begins; who waits for prompts waits for nobody."""
    monkeypatch.setattr(batches, "HEAD_START_SECONDS", 3600.0)
    rows, rendering = prefetcher(["a"], ["b"], ["c"])
    rows.prepare()
    await asyncio.sleep(0.01)
    assert rendering.rendered == []
    assert [await rows.take() for _ in range(2)] == [["a"], ["b"]]
    rows.prepare()
    await asyncio.sleep(0.01)
    assert rendering.rendered == ["a", "b"]
    await rows.close()
    assert rendering.rendered == ["a", "b"]  # and what nobody wants any more is not rendered


async def test_nothing_is_rendered_in_the_event_loops_thread() -> None:
    rows, rendering = prefetcher(["a"], ["b"])
    assert [await rows.take() for _ in range(2)] == [["a"], ["b"]]
    assert threading.get_ident() not in rendering.threads


async def test_a_bad_row_is_raised_when_it_is_wanted() -> None:
    rows, rendering = prefetcher(["a"], ["bad"])
    assert await rows.take() == ["a"]
    rendering.done.clear()
    rows.prepare()
    await rendered(rendering)
    with pytest.raises(RowError, match="no such thing"):
        await rows.take()


@pytest.mark.parametrize("ready", [False, True])
async def test_what_nobody_takes_leaves_nothing_behind(ready: bool) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    rows, rendering = prefetcher(["bad"])
    rows.prepare()
    if ready:
        await rendered(rendering)
    await rows.close()
    assert all(task is asyncio.current_task() for task in asyncio.all_tasks())
    del rows
    gc.collect()
    assert complaints == []


async def test_a_thread_that_renders_when_its_run_is_cancelled_is_waited_for() -> None:
    begun, go_on, ended = (threading.Event() for _ in range(3))

    def render(rows: Sequence[Row]) -> list[Prompts]:
        begun.set()
        go_on.wait(60)
        ended.set()
        return []

    rows = Prefetcher(render, iter(cast(Any, [["a"]])))
    taking = asyncio.create_task(rows.take())
    await asyncio.to_thread(begun.wait)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    closing = asyncio.create_task(rows.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    go_on.set()
    await closing
    assert ended.is_set()


class Patient(FakeStudent):
    """Trains once the next step's rows are rendered; the last step has none behind it."""

    name: ClassVar[str] = "patient"
    trained: ClassVar[int] = 0
    rendered: ClassVar[threading.Semaphore]

    async def train(self, batch: Batch) -> StepResult:
        """As ever."""
        if type(self).trained < 4:
            assert await asyncio.to_thread(self.rendered.acquire, timeout=60)
        type(self).trained += 1
        return await super().train(batch)


def test_the_next_steps_rows_are_rendered_while_a_step_is_under_way(
    fake_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patient, "trained", 0)
    monkeypatch.setattr(Patient, "rendered", threading.Semaphore(0), raising=False)
    render, calls = RowPipeline.render, 0

    def count(pipeline: RowPipeline, rows: Sequence[Row], renderer: Renderer) -> list[Prompts]:
        nonlocal calls
        calls += 1
        found = render(pipeline, rows, renderer)
        if calls > 1:  # the first step's are not rendered ahead
            Patient.rendered.release()
        return found

    monkeypatch.setattr(RowPipeline, "render", count)
    config = fake_config().model_copy(update={"student": Patient()})
    assert distillkit.run(config, plugins=[Patient, FakeScorer]).steps == 5
    assert calls == 5
