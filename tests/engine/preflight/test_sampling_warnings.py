"""What is said of sampling that is likely not meant so."""

from collections.abc import Callable
from typing import Any

import pytest

from distillkit import RunConfig
from engine.preflight.prepared import inspect


def said(config: RunConfig) -> list[str]:
    return [notice.message for notice in inspect(config).notices if "sampling.completions_per_prompt" in notice.message]


@pytest.mark.parametrize(
    ("sampling", "greedy"),
    [({"temperature": 0}, "temperature=0"), ({"top_k": 1}, "top_k=1"), ({"temperature": 0.1, "top_k": 2}, "")],
)
def test_completions_that_are_all_the_same_are_warned_of(
    fake_config: Callable[..., RunConfig], sampling: dict[str, Any], greedy: str
) -> None:
    wanted = (
        f"sampling.completions_per_prompt=3 with sampling.{greedy}: the 3 completions of a prompt are the same, which "
        "costs more and teaches nothing more; set sampling.completions_per_prompt=1"
    )
    assert said(fake_config(sampling={**sampling, "completions_per_prompt": 3})) == ([wanted] if greedy else [])
    assert not said(fake_config(sampling={**sampling, "completions_per_prompt": 1}))
