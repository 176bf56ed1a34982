"""Rows that whole runs are evaluated on."""

from collections.abc import Callable

import pytest
from conftest import question


@pytest.fixture
def held_out(jsonl: Callable[..., str]) -> str:
    return jsonl([question(f"held out {i}") for i in range(6)], "heldout.jsonl")
