"""A config of the fakes in an empty working directory, and how commands are called on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import question
from typer.testing import CliRunner, Result

from distillkit.cli.main import app
from distillkit.run_directory.result import finished_run
from distillkit.verdict.verdict_sentences import verdict_lines

FAKES = str(Path(__file__).parents[2] / "helpers" / "fake_plugins.py")
FAKE_TEACHER = [{"model": "m", "route_value": "a", "scorer": "fake"}]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], terminal_width=200)


@pytest.fixture
def config(tmp_path: Path, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a config of the fakes; keywords are laid over it. The working directory is empty."""
    monkeypatch.chdir(tmp_path)
    data = jsonl([question(f"number {i}", teacher="a") for i in range(6)])
    held_out = jsonl([question(f"held out {i}", teacher="a") for i in range(3)], "heldout.jsonl")

    def write(name: str = "config.yaml", **over: Any) -> str:
        values = {
            "name": "fake",
            "data": {"path": data, "eval_path": held_out},
            "student": {"name": "fake", "learning_rate": 30.0},
            "teachers": [{"model": "m", "route_value": "a", "scorer": {"name": "fake", "likes": "abc"}}],
            "sampling": {"max_completion_tokens": 8},
            "train": {"prompt_groups_per_step": 2},
            "plugins": [FAKES],
        }
        (tmp_path / name).write_text(yaml.safe_dump({**values, **over}), encoding="utf-8")
        return name

    return write


def verdict_of(folder: str) -> list[str]:
    """What the last lines of a run say, made anew of its files."""
    return [*verdict_lines(finished_run(Path(folder)).verdict)]


BROKEN = """
from distillkit.errors import InputError
from distillkit.testing import FakeScorer

class Broken(FakeScorer):
    '''Broken.'''
    name = 'broken'
    async def score(self, requests):
        if requests[0].rollout.policy_version > 0:
            raise ERROR('a bug')
        async for score in super().score(requests):
            yield score
"""


@pytest.fixture
def broken(tmp_path: Path, config: Callable[..., str]) -> Callable[..., str]:
    """A config whose second step fails with this error, after a checkpoint."""

    def write(error: str, **over: Any) -> str:
        script = tmp_path / "broken.py"
        script.write_text(BROKEN.replace("ERROR", error), encoding="utf-8")
        teachers = [{"model": "m", "route_value": "a", "scorer": "broken"}]
        train = {"save_every": 1, "prompt_groups_per_step": 2}
        return config(teachers=teachers, evaluators=[], train=train, **{"plugins": [FAKES, str(script)], **over})

    return write
