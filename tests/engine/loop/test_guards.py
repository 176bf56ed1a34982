"""A student that collapses is reported once a window, or stops the run; a healthy one is left alone."""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from distillkit import RunConfig, run
from distillkit.arrays import token_ids
from distillkit.config.sections import GuardsConfig
from distillkit.errors import RunFailedError
from distillkit.loop.guards import Guards
from distillkit.metrics import repetition
from distillkit.testing import FakeScorer

HEALTHY = {
    "completions/truncated_fraction": 0.1,
    "completions/repetition": 0.05,
    "train/sampling_nll": 1.2,
    "train/reverse_kl": 0.4,
}


def told(rows: list[Mapping[str, float]], **options: Any) -> list[tuple[int, str]]:
    """The step of each warning, counted from 1, and what it says."""
    heard: list[tuple[int, str]] = []
    guards = Guards(GuardsConfig(window=5, **options), lambda text: heard.append((step, text)))
    for step, row in enumerate(rows, start=1):  # noqa: B007 - read by the lambda
        assert guards.check(row) is None
    return heard


def falling(name: str, before: float, after: float, *, at: int = 10, steps: int = 30) -> list[Mapping[str, float]]:
    return [{**HEALTHY, name: before if step <= at else after} for step in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("name", "before", "after", "words"),
    [
        ("completions/truncated_fraction", 0.1, 1.0, "completions grow to the length limit"),
        ("completions/repetition", 0.05, 0.6, "completions repeat themselves"),
        ("train/sampling_nll", 1.2, 0.05, "hardly any entropy is left"),
        ("train/reverse_kl", 0.4, 0.9, "the gap to the teachers rises"),
    ],
)
def test_each_kind_of_collapse_is_told_once_a_window(name: str, before: float, after: float, words: str) -> None:
    heard = told(falling(name, before, after))
    assert all(words in text and name in text for _, text in heard)
    assert heard
    assert 10 < heard[0][0] <= 15
    steps = [step for step, _ in heard]
    assert all(later - earlier == 5 for earlier, later in pairwise(steps))
    assert not told(falling(name, before, after), action="off")


def test_a_healthy_run_and_what_was_so_from_the_start_are_left_alone() -> None:
    chance = np.random.default_rng(0)
    steady = [{name: value * float(chance.uniform(0.8, 1.2)) for name, value in HEALTHY.items()} for _ in range(60)]
    assert not told(steady)
    assert not told([{**HEALTHY, "completions/truncated_fraction": 1.0, "completions/repetition": 0.7}] * 30)
    assert not told([{**HEALTHY, "train/reverse_kl": 2.0 * 0.9**step} for step in range(60)])
    assert not told([{}] * 30)


def test_repetition_is_the_share_of_four_grams_that_were_there_before() -> None:
    assert repetition(token_ids(range(100))) == 0.0
    assert repetition(token_ids([7] * 13)) == pytest.approx(0.9)
    assert repetition(token_ids([1, 2, 3, 4] * 5)) == pytest.approx(1 - 4 / 17)
    assert repetition(token_ids([1, 1, 1, 1])) == 0.0


class Souring(FakeScorer):
    """Finds everything less likely with each version."""

    name: ClassVar[str] = "souring"

    async def score(self, requests: Any) -> Any:
        async for outcome in super().score(requests):
            version = outcome.request.rollout.policy_version
            yield type(outcome)(outcome.request, outcome.logprobs - 1.0 * version, outcome.echoed_ids)


@pytest.fixture
def souring(fake_config: Callable[..., RunConfig]) -> Iterator[Callable[..., RunConfig]]:
    def config(**guards: Any) -> RunConfig:
        teachers = [{"model": "t", "scorer": Souring(likes="abc")}]
        train = {"prompt_groups_per_step": 1, "save_every": 0}
        return fake_config(name="sour", teachers=teachers, train=train, guards={"window": 2, **guards})

    return config


def test_stop_leaves_a_checkpoint_from_which_a_resume_goes_on(souring: Callable[..., RunConfig]) -> None:
    with pytest.raises(RunFailedError, match=r"the gap to the teachers rises.*--resume guards\.action=warn"):
        run(souring(action="stop"))
    folder = Path(souring().log_path.replace("{name}", "sour"))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-4"]
    assert run(souring(), resume=True).steps == 10


def test_a_resumed_run_does_not_tell_again_what_was_told(souring: Callable[..., RunConfig]) -> None:
    result = run(souring())
    whole = (result.run_dir / "run.log").read_text().count("may be collapsing")
    assert whole == 4
    heard: list[str] = []
    guards = Guards(GuardsConfig(window=2), heard.append)
    guards.remember(result.metrics[:7])
    for row in result.metrics[7:]:
        guards.check({name: value for name, value in row.items() if isinstance(value, float)})
    assert len(heard) == 2


@pytest.mark.parametrize(
    ("steps", "first", "newest"),
    [
        (1, [], []),
        (3, [1], [3]),
        (4, [1, 2], [3, 4]),
        (9, [1, 2, 3, 4], [6, 7, 8, 9]),
        (30, [*range(1, 6)], [*range(26, 31)]),
    ],
)
@pytest.mark.parametrize("action", ["off", "warn"])
def test_the_first_steps_and_the_newest_are_kept_and_no_step_is_in_both(
    steps: int, first: list[int], newest: list[int], action: Any
) -> None:
    guards = Guards(GuardsConfig(window=5, action=action), print)
    half = [{"step": step, "train/reverse_kl": float(step)} for step in range(1, steps + 1)]
    guards.remember(half[:2])  # as a resumed run does
    for row in half[2:]:
        guards.check(row)
    seen = guards.steps_seen()
    gaps = [[row["train/reverse_kl"] for row in rows] for rows in (seen.first, seen.newest)]
    assert gaps == ([first, newest] if len(first) > 1 else [[], []])
    assert seen.trained == steps
