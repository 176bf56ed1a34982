"""A planted fault is found; a healthy run has none."""

from pathlib import Path
from typing import Any

import pytest
from helpers.html_outline import outline
from helpers.sample_lines import sample_line
from helpers.written_runs import ROUTES, lost, step, write_lines, write_run

from distillkit.report.findings import findings
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html
from distillkit.report.starting_gaps import starting_gaps


def found(tmp_path: Path, ledger: list[dict[str, Any]] | None = None, **over: float) -> list[str]:
    steps = [step(number, **over) for number in range(1, 21)]
    return [each.message for each in findings(read_run(write_run(tmp_path / "run", steps, ledger=ledger or [])))]


def test_a_healthy_run_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"completions/truncated_fraction": 0.97}, "Completions hardly ever end: 97% were cut"),
        (
            {"teacher_route/math/weight": 0.94, "teacher_route/code/weight": 0.06},
            "Route math drowns the others: it has 94% of all token weight",
        ),
        ({"teacher_route/code/reverse_kl": 0.001}, "The teacher of route code agrees with the student everywhere"),
        (
            {"teacher_route/math/reverse_kl": 0.5},
            "The gap of route math does not fall: after 20 steps 100% of it is left",
        ),
        ({"rollout/logprob_mismatch": 0.4}, "Sampler and trainer disagree by 0.400 nats"),
    ],
)
def test_a_fault_is_said_alone(tmp_path: Path, over: dict[str, float], said: str) -> None:
    (message,) = found(tmp_path, **over)
    assert message.startswith(said)


def test_lost_completions_are_said(tmp_path: Path) -> None:
    (message,) = found(tmp_path, [lost("r1", "timeout")])
    assert message.startswith("1 of 1 completions were lost")


def test_an_early_fault_that_is_over_is_not_said(tmp_path: Path) -> None:
    steps = [step(number, **{"completions/truncated_fraction": float(number < 10)}) for number in range(1, 21)]
    assert findings(read_run(write_run(tmp_path / "run", steps))) == ()


def test_each_finding_leads_to_its_curve(tmp_path: Path) -> None:
    over = {"completions/truncated_fraction": 1.0, "teacher_route/math/weight": 1.0, "teacher_route/code/weight": 0.0}
    over |= {"teacher_route/code/reverse_kl": 0.0}
    run = write_run(tmp_path / "run", [step(number, **over) for number in range(1, 21)])
    page = outline(report_html([read_run(run)]))
    links = [e.attributes["href"][1:] for e in page.all("a") if "li" in e.inside and "main" in e.inside]
    assert links == ["chart-truncated", "chart-weight", "chart-gap"]
    assert set(links) <= {e.attributes.get("id") for e in page.all("figure")}


TEACHERS = [{"model": "org/teacher", "route_value": route} for route in ROUTES]


def planted(tmp_path: Path, start: list[dict[str, Any]], **over: float) -> list[str]:
    run = write_run(tmp_path / "run", [step(number, **over) for number in range(1, 21)], config={"teachers": TEACHERS})
    write_lines(run / "samples.jsonl", start)
    return [each.message for each in findings(read_run(run))]


def start(route: str, teacher: list[float], **more: Any) -> dict[str, Any]:
    return sample_line(["a", "b", "c"], [-1.0, -1.0, -1.0], teacher, route=route, **more)


SAME = [-1.02, -0.98, -1.01]
"""The student's own logprobs in another number format."""


def test_a_teacher_that_is_the_student_is_found_though_other_routes_have_moved_it(tmp_path: Path) -> None:
    lines = [start("code", SAME), start("math", [-2.0, -3.0, -1.0]), start("code", [-3.0, -3.0, -3.0], step=2)]
    over = {"teacher_route/code/reverse_kl": 0.3}
    (message,) = planted(tmp_path, lines, **over)
    assert "The teacher of route code agrees with the student everywhere: before training the gap is 0.003" in message
    assert message.endswith("the gap that it has by now is what training moved.")


def test_a_mean_that_is_near_nothing_by_chance_is_no_agreement(tmp_path: Path) -> None:
    over = {"teacher_route/code/reverse_kl": 0.001}
    assert planted(tmp_path, [start("code", [-1.5, -0.5, -1.0])], **over) == []


def test_only_what_the_untrained_student_sampled_says_how_it_began(tmp_path: Path) -> None:
    later = [start("code", SAME, step=2), start("code", SAME, step=0, stage="after")]
    assert planted(tmp_path, later) == []
    assert starting_gaps(read_run(tmp_path / "run")) == {}


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"teacher_route/code/truncated_fraction": 0.9}, "Completions of route code hardly ever end: 90% or more"),
        (
            {f"teacher_route/{route}/truncated_fraction": 0.9 for route in ROUTES},
            "Completions of routes math and code hardly ever end",
        ),
        ({"completions/truncated_fraction": 0.6}, "Completions often do not end: 60% were cut"),
        (
            {"teacher_route/math/weight": 0.8, "teacher_route/code/weight": 0.2},
            "Route code is drowned by math: it has 50% of the completions and 20.0% of all token weight (math: 80%)",
        ),
    ],
)
def test_a_fault_of_one_route_is_said_of_it(tmp_path: Path, over: dict[str, float], said: str) -> None:
    (message,) = found(tmp_path, **over)
    assert message.startswith(said)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (0.9, "math drowns the others"),
        (0.8951, "math drowns the others"),  # it reads 90%
        (0.8949, "code is drowned by math"),
        (0.75, "code is drowned by math"),  # half of its part of the completions
        (0.749, ""),
    ],
)
def test_at_its_bound_a_rule_speaks(tmp_path: Path, weight: float, said: str) -> None:
    told = found(tmp_path, **{"teacher_route/math/weight": weight, "teacher_route/code/weight": 1 - weight})
    assert [each.startswith(f"Route {said}") for each in told] == [True] * bool(said)


def test_a_route_whose_rows_are_few_by_choice_is_not_drowned(tmp_path: Path) -> None:
    over = {"teacher_route/math/weight": 0.8, "teacher_route/code/weight": 0.2, "teacher_route/code/scored": 2.0}
    assert found(tmp_path, **over) == []


def test_a_gap_that_rises_is_not_said_to_want_a_higher_learning_rate(tmp_path: Path) -> None:
    steps = [step(number, **{"teacher_route/math/reverse_kl": 0.1 * number}) for number in range(1, 21)]
    (found,) = findings(read_run(write_run(tmp_path / "run", steps)))
    assert found.message.startswith("The gap of route math rises: 0.300 nats a token in its first steps, 1.80 in its")
    assert "A lower learning_rate" in found.message


def test_lost_completions_lead_to_where_the_reasons_stand(tmp_path: Path) -> None:
    page = outline(report_html([read_run(write_run(tmp_path / "run", ledger=[lost("r1", "timeout")]))]))
    assert [e.attributes["href"] for e in page.all("a") if "li" in e.inside and "main" in e.inside] == ["#lost"]
