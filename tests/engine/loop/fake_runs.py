"""Runs of the fakes."""

from typing import Any

import distillkit
from distillkit import RunConfig, RunResult
from distillkit.testing import FakeScorer, FakeStudent


def run(config: RunConfig, **options: Any) -> RunResult:
    return distillkit.run(config, plugins=[FakeStudent, FakeScorer], **options)
