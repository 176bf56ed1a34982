"""A run of thousands of steps needs no more memory and no more files at its end than at its beginning."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from conftest import question

from distillkit import RunConfig, Sink, run
from distillkit.events import Event, StepFinished
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import FakeScorer

STEPS = 2000
GROWTH = 2 * 2**20
"""Bytes, over 1,500 steps: less than 1.5 kB a step, which is what allocators keep."""


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Gauge(Sink):
    """Reads memory and open files at two steps."""

    name = "gauge"
    _seen: dict[int, tuple[int, int]] = {}  # noqa: RUF012 - a private attribute of pydantic's

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.step in (500, STEPS):
            self._seen[event.step] = (resident(), len(list(Path("/proc/self/fd").iterdir())))


class Forgetful(FakeScorer):
    """The kit's scorer remembers every request."""

    name = "forgetful"

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for outcome in super().score(requests):
            yield outcome
        self.seen.clear()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_and_open_files_stay_flat_over_two_thousand_steps(
    fake_config: Callable[..., RunConfig], jsonl: Callable[..., str]
) -> None:
    gauge = Gauge()
    rows = jsonl([question(f"row {i}") for i in range(STEPS // 2)], "long.jsonl")
    config = fake_config(
        data={"path": rows, "epochs": 2},
        student={"name": "fake", "learning_rate": 0.01},
        teachers=[{"model": "t", "scorer": Forgetful(likes="abc")}],
        sampling={"completions_per_prompt": 2, "max_completion_tokens": 8},
        train={"prompt_groups_per_step": 1, "save_every": 500, "sample_every": 100, "max_steps_off_policy": 1},
        sinks=[gauge],
    )
    assert run(config).steps == STEPS
    (early, files), (late, open_files) = gauge._seen[500], gauge._seen[STEPS]
    assert late - early < GROWTH
    assert open_files <= files
