"""`distillkit diagnose` on real models: two routes, of which one teacher is the student behind another prompt."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from conftest import question

from distillkit import Registry, RunConfig
from distillkit.diagnosis.figures_of import diagnosis_of
from distillkit.diagnosis.measurement import measured
from distillkit.diagnosis.route_figures import Diagnosis
from distillkit.preflight.prepared_run import prepare_run

SCORER = {"name": "local", "dtype": "float32", "device": "cpu"}
ROWS = 12


def diagnosed(config: RunConfig) -> Diagnosis:
    prepared = prepare_run(config, Registry.discover(), print)
    found = asyncio.run(measured(prepared, ROWS, print))
    return diagnosis_of(found, list(prepared.plugins.scorers))


@pytest.fixture
def routed(
    local_config: Callable[..., RunConfig], jsonl: Callable[..., str], tiny_model: str, other_tiny_model: str
) -> Diagnosis:
    rows: list[dict[str, Any]] = [question(f"number {i}", teacher="other") for i in range(6)]
    rows += [
        question(f"number {i}", teacher="self", teacher_messages=question(f"Be brief. {i}")["messages"])
        for i in range(6)
    ]
    teachers = [
        {"model": other_tiny_model, "route_value": "other", "scorer": SCORER},
        {"model": tiny_model, "route_value": "self", "scorer": SCORER},
    ]
    return diagnosed(
        local_config(data={"path": jsonl(rows, "routed.jsonl")}, router={"name": "field"}, teachers=teachers)
    )


def test_the_student_behind_another_prompt_differs_by_that_prompt_alone(routed: Diagnosis) -> None:
    mine = routed.routes["self"].gap
    assert mine.prompt is not None
    assert mine.prompt.student.value == pytest.approx(0, abs=1e-5)
    assert mine.prompt.difference.value == pytest.approx(mine.prompt.own.value, abs=1e-5)
    assert mine.prompt.own == mine.reverse_kl
    assert routed.routes["self"].teacher_prompt != routed.routes["self"].student_prompt


def test_another_model_behind_the_same_prompt_has_a_gap_of_its_own(routed: Diagnosis) -> None:
    other = routed.routes["other"]
    assert other.gap.reverse_kl is not None
    assert other.gap.reverse_kl.value > 4 * other.gap.reverse_kl.error
    assert other.gap.prompt is None
    assert other.teacher_prompt == other.student_prompt
    assert (other.rows, routed.overall.rows) == (6, 12)


def test_teachers_that_write_have_lengths_and_an_entropy(routed: Diagnosis) -> None:
    for route in (*routed.routes.values(), routed.overall):
        assert route.teacher_lengths is not None
        assert route.teacher_lengths.completions == route.rows
        assert route.entropy.teacher is not None
        assert 0 < route.entropy.teacher.value < 6  # of 259 tokens: log 259 is 5.6


def test_a_teacher_that_is_the_student_teaches_nothing(local_config: Callable[..., RunConfig], tiny_model: str) -> None:
    found = diagnosed(local_config(teachers=[{"model": tiny_model, "scorer": SCORER}]))
    assert found.overall.gap.absolute == pytest.approx(0, abs=1e-5)
    assert found.overall.gap.large == 0
