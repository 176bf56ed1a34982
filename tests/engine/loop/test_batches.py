"""Rows of the next step are rendered while a step is under way; what is wrong with them is told when wanted."""

import asyncio
import gc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import pytest

import distillkit
from distillkit import RunConfig
from distillkit.errors import RowError
from distillkit.loop.batches import Prefetcher, RowBatches
from distillkit.records import Batch, StepResult
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.types import Prompts, Row


class Rendering:
    """Stands for a feed: renders rows as their own names, but for one that is bad."""

    def __init__(self) -> None:
        self.rendered: list[str] = []
        self.done = asyncio.Event()

    def render(self, rows: Sequence[Row]) -> list[Prompts]:
        """Names, in order."""
        self.done.set()
        names = [cast(str, row) for row in rows]
        if "bad" in names:
            raise RowError("messages", "no such thing")
        self.rendered += names
        return cast(list[Prompts], names)


def prefetcher(*groups: list[str]) -> tuple[Prefetcher, Rendering]:
    feed = Rendering()
    return Prefetcher(cast(RowBatches, feed), iter(cast(Any, groups))), feed


async def test_prompts_come_in_order_and_then_none() -> None:
    rows, feed = prefetcher(["a", "b"], ["c"])
    rows.prepare()
    rows.prepare()
    await asyncio.sleep(0)
    assert feed.rendered == []  # the sampler goes first
    await feed.done.wait()
    assert feed.rendered == ["a", "b"]
    taken = [await rows.take() for _ in range(4)]
    assert taken == [["a", "b"], ["c"], None, None]


async def test_a_bad_row_is_told_when_it_is_wanted() -> None:
    rows, feed = prefetcher(["a"], ["bad"])
    assert await rows.take() == ["a"]
    feed.done.clear()
    rows.prepare()
    await feed.done.wait()
    with pytest.raises(RowError, match="no such thing"):
        await rows.take()


@pytest.mark.parametrize("rendered", [False, True])
async def test_what_nobody_takes_is_let_go(rendered: bool) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    rows, feed = prefetcher(["bad"])
    rows.prepare()
    if rendered:
        await feed.done.wait()
    await rows.close()
    assert all(task is asyncio.current_task() for task in asyncio.all_tasks())
    del rows
    gc.collect()
    assert told == []


class Patient(FakeStudent):
    """Trains once the next step's rows are rendered; the last step has none behind it."""

    name: ClassVar[str] = "patient"
    told: ClassVar[list[str]] = []
    rendered: ClassVar[asyncio.Event]

    async def train(self, batch: Batch) -> StepResult:
        """As ever."""
        if self.told.count("trained") < 4:
            await self.rendered.wait()
            self.rendered.clear()
        self.told.append("trained")
        return await super().train(batch)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was rendered and trained, in order."""
    monkeypatch.setattr(Patient, "told", [])
    monkeypatch.setattr(Patient, "rendered", asyncio.Event(), raising=False)
    render = RowBatches.render

    def tell(feed: RowBatches, rows: Sequence[Row]) -> list[Prompts]:
        if Patient.told:  # the first step's are not rendered ahead
            Patient.rendered.set()
        Patient.told.append("render")
        return render(feed, rows)

    monkeypatch.setattr(RowBatches, "render", tell)
    return Patient.told


def test_the_next_steps_rows_are_rendered_while_a_step_is_under_way(
    fake_config: Callable[..., RunConfig], told: list[str]
) -> None:
    config = fake_config().model_copy(update={"student": Patient()})
    assert distillkit.run(config, plugins=[Patient, FakeScorer]).steps == 5
    assert told == ["render", *["render", "trained"] * 4, "trained"]
