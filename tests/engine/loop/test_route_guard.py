"""One route whose gap rises while another's falls is told of; anything else is not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from distillkit.config.sections import GuardsConfig
from distillkit.loop.guards import Guards

Row = Mapping[str, float | None]


def rows(steps: int = 30, **routes: tuple[float, float]) -> list[Row]:
    """Each route's gap goes from one number to another, from step 10 to the end."""
    shares = [max(0, step - 9) / (steps - 10) for step in range(steps)]
    names = {f"teacher_route/{route}/reverse_kl": ends for route, ends in routes.items()}
    return [{name: then + (now - then) * share for name, (then, now) in names.items()} for share in shares]


def told(steps: Sequence[Row], **options: Any) -> list[str]:
    heard: list[str] = []
    guards = Guards(GuardsConfig(window=5, **options), heard.append)
    for row in steps:
        guards.check({"train/reverse_kl": 0.5, **row})
    return heard


def test_the_route_that_rises_is_named_with_the_one_that_falls() -> None:
    heard = told(rows(short=(0.4, 1.0), long=(0.9, 0.3)))
    assert heard
    assert "the gap to one teacher rises while others' fall, teacher_route/short/reverse_kl is" in heard[0]
    assert "teacher_route/long/reverse_kl 0." in heard[0]
    assert "train.normalization=route_mean or teachers[].share" in heard[0]
    assert len(heard) <= 4


@pytest.mark.parametrize(
    "steps",
    [
        rows(short=(0.4, 0.2), long=(0.9, 0.3)),
        rows(short=(0.4, 0.42), long=(0.9, 0.3)),
        rows(short=(0.4, 1.0), long=(0.9, 0.9)),
        rows(short=(0.4, 1.0), long=(0.9, 1.5)),
        rows(short=(0.4, 1.0)),
        rows(short=(0.01, 0.04), long=(0.9, 0.3)),
        [{}] * 30,
    ],
)
def test_what_falls_or_stays_or_rises_together_is_not_told(steps: Sequence[Row]) -> None:
    assert not told(steps)


def test_noise_is_not_told() -> None:
    chance = np.random.default_rng(0)
    clean = rows(60, short=(0.5, 0.4), long=(0.9, 0.3))
    assert not told([{name: value * float(chance.uniform(0.7, 1.3)) for name, value in row.items()} for row in clean])


def test_it_can_be_left_out_and_made_to_stop() -> None:
    steps = rows(short=(0.4, 1.0), long=(0.9, 0.3))
    assert not told(steps, route_gap_rise=None)
    assert not told(steps, action="off")
    assert len(told(steps, route_gap_rise=0.1)) >= len(told(steps))
    guards = Guards(GuardsConfig(window=5, action="stop"), lambda text: None)
    for row in steps:
        guards.check(row)
    assert guards.alarm is not None
    assert "teacher_route/short/reverse_kl" in guards.alarm


def test_a_route_without_completions_in_some_steps_is_compared_in_the_others() -> None:
    steps = [dict(row) for row in rows(short=(0.4, 1.2), long=(0.9, 0.3))]
    for row in steps[::2]:
        del row["teacher_route/short/reverse_kl"]
    assert told(steps)


def test_what_was_before_a_resume_counts() -> None:
    steps = rows(short=(0.4, 1.0), long=(0.9, 0.3))
    heard: list[str] = []
    guards = Guards(GuardsConfig(window=5), heard.append)
    guards.remember([{"step": at, "train/reverse_kl": 0.5, **row} for at, row in enumerate(steps[:20], start=1)])
    for row in steps[20:]:
        guards.check({"train/reverse_kl": 0.5, **row})
    assert heard == told(steps)[-len(heard) :]
    assert heard
