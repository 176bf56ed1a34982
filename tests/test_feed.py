"""Rows of the next step are rendered while a step is under way; what is wrong with them is told when wanted."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

import distillkit
from distillkit import RunConfig
from distillkit.errors import RowError
from distillkit.feed import HEAD_START_S, Feed, Upcoming
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.types import Batch, Prompts, Row, StepResult


class Rendering:
    """Stands for a feed: renders rows as their own names, but for one that is bad."""

    def __init__(self) -> None:
        self.rendered: list[str] = []

    def render(self, rows: Sequence[Row]) -> list[Prompts]:
        """Names, in order."""
        names = [cast(str, row) for row in rows]
        if "bad" in names:
            raise RowError("messages", "no such thing")
        self.rendered += names
        return cast(list[Prompts], names)


def upcoming(*groups: list[str]) -> tuple[Upcoming, Rendering]:
    feed = Rendering()
    return Upcoming(cast(Feed, feed), iter(cast(Any, groups))), feed


async def test_prompts_come_in_order_and_then_none() -> None:
    rows, feed = upcoming(["a", "b"], ["c"])
    rows.prepare()
    rows.prepare()
    await asyncio.sleep(0)
    assert feed.rendered == []  # the sampler goes first
    await asyncio.sleep(2 * HEAD_START_S)
    assert feed.rendered == ["a", "b"]
    taken = [await rows.take() for _ in range(4)]
    assert taken == [["a", "b"], ["c"], None, None]


async def test_a_bad_row_is_told_when_it_is_wanted() -> None:
    rows, _ = upcoming(["a"], ["bad"])
    assert await rows.take() == ["a"]
    rows.prepare()
    await asyncio.sleep(2 * HEAD_START_S)
    with pytest.raises(RowError, match="no such thing"):
        await rows.take()


async def test_what_nobody_takes_is_let_go(recwarn: pytest.WarningsRecorder) -> None:
    for pause in (0, 2 * HEAD_START_S):
        rows, _ = upcoming(["bad"])
        rows.prepare()
        await asyncio.sleep(pause)
        await rows.close()
    assert not recwarn.list


def test_the_next_steps_rows_are_rendered_while_a_step_is_under_way(
    fake_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    render, train = Feed.render, FakeStudent.train

    def tell_render(feed: Feed, rows: Sequence[Row]) -> list[Prompts]:
        told.append("render")
        return render(feed, rows)

    async def tell_train(student: FakeStudent, batch: Batch) -> StepResult:
        await asyncio.sleep(2 * HEAD_START_S)
        told.append("trained")
        return await train(student, batch)

    monkeypatch.setattr(Feed, "render", tell_render)
    monkeypatch.setattr(FakeStudent, "train", tell_train)
    result = distillkit.run(fake_config(), plugins=[FakeStudent, FakeScorer])
    assert result.steps == 5
    assert told == ["render", *["render", "trained"] * 4, "trained"]
