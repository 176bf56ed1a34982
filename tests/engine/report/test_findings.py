"""A planted fault is found; a healthy run has none."""

from pathlib import Path
from typing import Any

import pytest
from helpers.html_outline import outline
from helpers.written_runs import lost, step, write_run

from distillkit.report.findings import findings
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html


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
            {"teacher_route/math/reverse_kl": 0.5, "teacher_route/math/headroom": 0.99},
            "The gap of route math does not fall: after 20 steps 99% of it is left",
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
