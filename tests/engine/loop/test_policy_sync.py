"""A teacher that follows the student changes between windows, and a window has scores of one of its versions."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from pydantic import Field, PrivateAttr

import distillkit
from distillkit import RunConfig
from distillkit.errors import PluginError
from distillkit.records import Failure, Score, ScoreRequest, Weights
from distillkit.testing import FakeScorer, FakeStudent

Make = Callable[..., RunConfig]


class MovingTeacher(FakeScorer):
    """Likes its characters more with each version; answers after moments that `jitter` draws."""

    name: ClassVar[str] = "moving"
    heard: ClassVar[list[Weights]] = []
    scored: ClassVar[dict[Any, set[int]]] = {}
    jitter: int = Field(0, description="Seed of the delays.")
    _version: int = PrivateAttr(0)

    def moves(self) -> bool:
        return True

    async def on_sync(self, weights: Weights) -> None:
        self.heard.append(weights)
        self._version = weights.version

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        for request in requests:
            delay = random.Random(f"{self.jitter} {request.key}").random()
            await asyncio.sleep(0.01 * delay)
            async for outcome in super().score([request]):
                assert isinstance(outcome, Score)
                self.scored.setdefault(request.rollout.policy_version, set()).add(self._version)
                yield Score(outcome.request, outcome.logprobs - 0.1 * self._version, outcome.echoed_ids, self._version)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MovingTeacher, "heard", [])
    monkeypatch.setattr(MovingTeacher, "scored", {})


def reverse_kl(fake_config: Make, jitter: int, **train: Any) -> list[object]:
    teachers = [{"model": "t", "scorer": MovingTeacher(likes="abc", jitter=jitter)}]
    config = fake_config(name=f"jitter-{jitter}", teachers=teachers, train={"prompt_groups_per_step": 2, **train})
    result = distillkit.run(config, plugins=[FakeStudent, FakeScorer])
    return [row["train/reverse_kl"] for row in result.metrics]


@pytest.mark.parametrize("off_policy", [0, 1, 2])
def test_what_a_moving_teacher_says_does_not_depend_on_when_it_says_it(fake_config: Make, off_policy: int) -> None:
    runs = [reverse_kl(fake_config, jitter, max_steps_off_policy=off_policy) for jitter in range(3)]
    assert runs[0] == runs[1] == runs[2]


def test_a_window_is_scored_by_one_version_and_the_teacher_hears_the_published_weights(fake_config: Make) -> None:
    reverse_kl(fake_config, 0, max_steps_off_policy=1)
    assert MovingTeacher.heard == [Weights(version, "live") for version in range(6)]
    # Step s trains policy max(0, s - 2); its window is scored before the teacher hears of the next version.
    assert MovingTeacher.scored == {0: {0}, 1: {1}, 2: {2}, 3: {3}}


def test_a_scorer_that_changes_inside_a_window_ends_the_run(fake_config: Make) -> None:
    class Hasty(MovingTeacher):
        """Changes whenever it is asked."""

        name: ClassVar[str] = "hasty"

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            async for outcome in super().score(requests):
                assert isinstance(outcome, Score)
                self._version += 1
                yield replace(outcome, version=self._version)

    config = fake_config(teachers=[{"model": "t", "scorer": Hasty(likes="abc")}])
    with pytest.raises(PluginError, match="two versions of itself"):
        distillkit.run(config, plugins=[FakeStudent, FakeScorer])


def test_a_scorer_that_would_never_hear_of_a_sync_is_refused_where_it_is_defined() -> None:
    with pytest.raises(PluginError, match="has `on_sync`, which only a scorer hears whose `moves"):

        class Deaf(FakeScorer):
            """Waits for what never comes."""

            async def on_sync(self, weights: Weights) -> None:
                pass
