"""A run whose turns end as a test says."""

from collections.abc import Callable
from typing import Any

import pytest

from distillkit import RunConfig
from engine.preflight.turn_endings import Ending, EndingScorer, Ends

Make = Callable[..., RunConfig]


@pytest.fixture
def make(fake_config: Make) -> Callable[..., RunConfig]:
    """A config of a student with these ends, and of teachers with theirs."""

    def made(student: Ends, *teachers: Any, **over: Any) -> RunConfig:
        sections = [
            {"model": f"t{i}", "scorer": EndingScorer(ends=given)} if isinstance(given, tuple) else given
            for i, given in enumerate(teachers)
        ]
        return fake_config(student=Ending(ends=student), teachers=sections, **over)

    return made
