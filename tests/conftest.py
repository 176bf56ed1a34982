"""Fixtures that every test may use: data files, runs of the fakes, a tiny real model, the demo's model."""

import gc
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

from distillkit import Registry, RunConfig
from distillkit.testing import FakeScorer, FakeStudent, ListSink
from distillkit_builtin.local.requirements import quieten

Rows = Sequence[Mapping[str, Any]]
DAY = 86_400.0
# The same examples each time, in whatever time a busy machine takes; other examples are found by `make fuzz`.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
quieten()  # before a test file imports PEFT, and it bitsandbytes
# What they compare is in the message, as that of a test file is: a failure says in what two runs differ.
pytest.register_assert_rewrite("builtin.tinker.compared_runs", "engine.run_directory.same_fields")


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    """Random numbers of a test's own do not depend on the tests before it."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _no_waits_for_the_hub() -> Iterator[None]:
    """It cannot be reached from a test, and is tried six times, which takes 23 s with the waits between them."""
    from huggingface_hub.utils import _http

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reverse", action="store_true", help="run the last test first: none may depend on another")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # files of few, slow tests first: so all processes are busy to the end
        items.sort(key=lambda item: item.path.parent != Path(__file__).parent)
    if config.getoption("--reverse"):
        items.reverse()


def pytest_collection_finish() -> None:
    """Freeze what is loaded, once: else every run of every test does so, and collects all garbage before it."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the end of the process collect it: compiled libraries complain of what is left of theirs."""
    gc.unfreeze()


def question(content: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., str]:
    """Write rows (or raw lines) into a file; returns its path."""

    def write(rows: Sequence[Any], name: str = "train.jsonl") -> str:
        path = tmp_path / name
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return str(path)

    return write


@pytest.fixture
def registry() -> Registry:
    """Everything installed, and the fakes."""
    found = Registry.discover()
    for cls in (FakeStudent, FakeScorer, ListSink):
        found.add(cls)
    return found


@pytest.fixture
def fake_config(tmp_path: Path, registry: Registry, jsonl: Callable[..., str]) -> Callable[..., RunConfig]:
    """A config that runs the fakes on ten rows; sections given as keywords are laid over it."""

    def make(**over: Any) -> RunConfig:
        values: dict[str, Any] = {
            "name": "fake",
            "log_path": str(tmp_path / "runs" / "{name}"),
            "data": {"path": jsonl([question(f"number {i}") for i in range(10)], "base.jsonl")},
            "student": {"name": "fake", "learning_rate": 30.0},
            "teachers": [{"model": "t", "scorer": {"name": "fake", "likes": "abc"}}],
            "sampling": {"completions_per_prompt": 2, "max_completion_tokens": 12},
            "train": {"prompt_groups_per_step": 2},
            "sinks": [],
        }
        for key, value in over.items():
            if isinstance(value, dict) and isinstance(values.get(key), dict):
                values[key] = {**values[key], **value}
            else:
                values[key] = value
        return RunConfig(registry=registry, **values)

    return make


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The process's umask, for one test."""
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


@pytest.fixture(params=["forwards", "backwards", "to and fro"])
def jumping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Each time that somebody asks for the date, it is another day; what was told."""
    told: list[float] = []
    days = {
        "forwards": itertools.count(1),
        "backwards": itertools.count(-1, -1),
        "to and fro": itertools.cycle([3, -3]),
    }
    jumps, honest = days[request.param], time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: told.append(honest() + next(jumps) * DAY) or told[-1])
        yield told


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a random Llama of two layers, with a tokenizer. So small a model is slower on two threads."""
    import torch
    from helpers import tiny_models

    torch.set_num_threads(1)
    return tiny_models.write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def other_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same shape and tokenizer with other weights: a teacher that disagrees."""
    from helpers import tiny_models

    return tiny_models.write_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def local_config(
    tmp_path: Path, tiny_model: str, other_tiny_model: str, jsonl: Callable[..., str]
) -> Callable[..., RunConfig]:
    """A config that trains the tiny model towards the other one, in float32 on the CPU."""

    def make(**over: Any) -> RunConfig:
        values: dict[str, Any] = {
            "name": "tiny",
            "log_path": str(tmp_path / "runs" / "{name}"),
            "data": {"path": jsonl([question(f"number {i}") for i in range(8)], "tiny_models.jsonl")},
            "student": {
                "name": "local",
                "model": tiny_model,
                "dtype": "float32",
                "device": "cpu",
                "lora_rank": 4,
                "lora_alpha": 8,
                "learning_rate": 0.02,
            },
            "teachers": [{"model": other_tiny_model, "scorer": {"name": "local", "dtype": "float32", "device": "cpu"}}],
            "sampling": {"completions_per_prompt": 2, "max_completion_tokens": 8},
            "train": {"prompt_groups_per_step": 4},
            "probe": {"at_start": "never"},  # a random model hardly ever ends a completion by itself
            "sinks": [],
        }
        for key, value in over.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) and key in values else value
        return RunConfig(**values)

    return make


@pytest.fixture
def write_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: str, other_tiny_model: str
) -> Callable[[str], None]:
    """Write the marked code of a page, such as `docs/losses.md`, into a working directory of the test's own."""
    from helpers.doc_blocks import write_blocks

    monkeypatch.chdir(tmp_path)
    return partial(write_blocks, student=tiny_model, teacher=other_tiny_model)
