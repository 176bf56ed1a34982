"""What a run trains on is named by `check`, by the run's first lines and in run.log; what does nothing is said."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import question

from distillkit import Registry, RunConfig, check, run
from distillkit.events import RunStarted
from distillkit.positions import READS
from distillkit.preflight.objective import objective
from distillkit.preflight.prepared_run import prepare_run
from distillkit.testing import ListSink
from distillkit_builtin.losses.divergence import Divergence
from distillkit_builtin.losses.importance_sampling import Anchor, ImportanceSampling

Make = Callable[..., RunConfig]


def teachers(*names: str, **weights: float) -> list[dict[str, Any]]:
    return [
        {"model": name, "route_value": name, "scorer": {"name": "fake"}, "weight": weights.get(name, 1.0)}
        for name in names
    ]


@pytest.fixture
def routed(fake_config: Make, jsonl: Callable[..., str]) -> Make:
    """Four rows, of teachers `a` and `b` by turns."""

    def make(**over: Any) -> RunConfig:
        rows = [question(f"number {i}", teacher="ab"[i % 2]) for i in range(4)]
        return fake_config(data={"path": jsonl(rows, "ab.jsonl")}, **over)

    return make


def said(config: RunConfig, registry: Registry) -> str:
    return objective(config, prepare_run(config, registry, print).pipeline)


@pytest.mark.parametrize(
    ("over", "line"),
    [
        ({}, "importance_sampling, token_mean"),
        (
            {
                "loss": ImportanceSampling(scale=0.5, anchor=Anchor(to="b", weight=0.25)),
                "router": "single",
                "train": {"normalization": "sum"},
            },
            "importance_sampling (scale: 0.5, anchor: {to: b, weight: 0.25}), sum; asked besides: b",
        ),
        (
            {"train": {"weightings": ["truncated", {"name": "skip_first", "tokens": 3}]}},
            "importance_sampling, token_mean; weightings: truncated, skip_first (tokens: 3)",
        ),
        (
            {"router": "all", "teachers": teachers("a", "b", a=3)},
            "importance_sampling, token_mean; mixture: a 75%, b 25%",
        ),
    ],
    ids=["default", "reference", "weightings", "mixture"],
)
def test_the_objective_in_a_line(routed: Make, registry: Registry, over: dict[str, Any], line: str) -> None:
    assert said(routed(**{"teachers": teachers("a", "b"), **over}), registry) == line


def test_a_run_says_it_at_its_beginning(routed: Make) -> None:
    sink = ListSink()
    result = run(routed(router="all", teachers=teachers("a", "b", a=3), sinks=[sink]))
    line = "importance_sampling, token_mean; mixture: a 75%, b 25%"
    assert [event.objective for event in sink.events if isinstance(event, RunStarted)] == [line]
    assert f"; loss: {line}\n" in (result.run_dir / "run.log").read_text(encoding="utf-8")


def test_a_weight_of_one_teacher_a_row_does_nothing(routed: Make) -> None:
    nothing = "teacher 'a': its weight of 3 does nothing: router 'field' sends no row to several teachers"
    weighted = teachers("a", "b", a=3)
    assert any(note.startswith(nothing) for note in check(routed(teachers=weighted)).notes)
    for config in (routed(teachers=teachers("a", "b")), routed(teachers=weighted, router="all")):
        assert "does nothing" not in "".join(check(config).notes)


def test_a_weight_of_a_reference_does_nothing(routed: Make) -> None:
    loss = ImportanceSampling(anchor=Anchor(to="b"))
    config = routed(teachers=teachers("a", "b", b=2), loss=loss, router="single")
    assert "teacher 'b': its weight of 2 does nothing: loss 'importance_sampling' asks it besides" in "".join(
        check(config).notes
    )


@pytest.mark.parametrize(("router", "same"), [("field", False), ("all", True)])
def test_a_mean_of_one_route_is_one_of_tokens(routed: Make, router: str, same: bool) -> None:
    config = routed(teachers=teachers("a", "b"), router=router, train={"normalization": "route_mean"})
    assert any("route_mean does what token_mean does" in note for note in check(config).notes) == same


def test_more_tokens_than_there_are_and_prefixes_of_another_policy_are_said(
    fake_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = type(fake_config().student)
    monkeypatch.setattr(student, "loss_capabilities", lambda self: frozenset(READS))
    monkeypatch.setattr("distillkit.testing.FakeScorer.capabilities", lambda self: {"sampled": None, "topk": None})
    for k, more in ((5000, True), (16, False)):
        loss = Divergence(support="teacher_topk", k=k)
        notes = "".join(check(fake_config(loss=loss, sampling={"temperature": 0.7})).notes)
        assert ("ask for the 5,000 most probable tokens, and there are" in notes) == more
        assert "loss 'divergence' compares student and teacher at prefixes that another policy wrote" in notes
        assert "denominator" not in notes
