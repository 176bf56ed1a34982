"""A run that samples from a loopback vLLM."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import question

from distillkit import RunConfig
from distillkit_loopback.openai.server import LoopbackServer

Make = Callable[..., RunConfig]


@pytest.fixture
def remote_config(local_config: Make, jsonl: Callable[..., str]) -> Make:
    """A run of three steps, of two rows with two completions each."""

    def make(server: LoopbackServer, *, sampler: dict[str, Any] | None = None, **over: Any) -> RunConfig:
        options = {"name": "vllm", "base_url": server.url, **(sampler or {})}
        rows = jsonl([question(f"number {i}") for i in range(6)], "six.jsonl")
        values: dict[str, Any] = {
            "data": {"path": rows},
            "sampling": {"max_completion_tokens": 6},
            "train": {"prompt_groups_per_step": 2},
            **over,
        }
        return local_config(**{**values, "student": {**values.get("student", {}), "sampler": options}})

    return make
