"""`distillkit check --probe`: what a person sees, and the exit code."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from conftest import question
from rich.console import Console
from typer.testing import CliRunner, Result

from distillkit.cli.main import app
from distillkit.cli.probe_page import show_figures
from distillkit.probe.figures import Disagreement, Gap, ProbeFigures, TeacherFigures
from distillkit.probe.sampling_test import untouched_sampling

TOP = Path(__file__).parents[2]
SCRIPTS = [str(TOP / "helpers" / "fake_plugins.py"), str(TOP / "helpers" / "faulty_plugins.py")]


@pytest.fixture
def config(tmp_path: Path, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a config of the fakes with two teachers; the working directory is empty but for it."""
    monkeypatch.chdir(tmp_path)
    rows = [question(f"number {i}", teacher="ab"[i % 2]) for i in range(20)]

    def write(student: str = "fake", scorer: str = "fake", tokens: int = 400) -> str:
        values = {
            "data": jsonl(rows),
            "student": student,
            "teachers": [
                {"model": "m", "route_value": "a", "scorer": {"name": "fake", "likes": "abcdef"}},
                {"model": "m", "route_value": "b", "scorer": {"name": scorer, "likes": "abcdef"}},
            ],
            "sampling": {"max_completion_tokens": tokens, "temperature": 0.9},
            "plugins": SCRIPTS,
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return "config.yaml"

    return write


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments])


def test_the_figures_fit_on_80_columns_and_nothing_is_left_behind(config: Callable[..., str], tmp_path: Path) -> None:
    done = call(config(), "--probe")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("probe: 16 completions of 16 rows, "))
    table = next(place for place, line in enumerate(lines) if line.startswith("gap to the student"))
    assert all(len(line) <= 80 for line in lines[start:]), done.output
    assert [line.split()[0] for line in lines[table + 2 : table + 4]] == ["a", "b"]
    assert [line.split()[1:4] for line in lines[table + 6 : table + 8]] == [["0/0"] * 3] * 2
    assert "the run itself samples otherwise" in " ".join(done.output.split())
    assert lines[-2:] == ["ok: nothing is wrong with what was measured", "check: ok"]
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "train.jsonl"}


def test_what_is_refused_is_said_of_each_teacher_and_ends_with_code_2(config: Callable[..., str]) -> None:
    done = call(config(scorer="jitter"), "--probe")
    assert done.exit_code == 2
    lines = done.output.splitlines()
    refused = [line for line in lines if line.startswith("refuse: ")]
    assert len(refused) == 1
    assert refused[0].startswith("refuse: teacher 'b' gives the same tokens other scores")
    assert lines[-1] == "error: the probe refuses this run, for what stands above"
    assert "check: ok" not in done.output


def test_quiet_says_only_what_is_wrong(config: Callable[..., str]) -> None:
    assert call(config(), "--probe", "-q").output == "check: ok\n"
    done = call(config(tokens=1), "--probe", "-q")
    assert done.exit_code == 2
    assert done.output.startswith("refuse: none of 16 completions ended by itself within 1 tokens")


def test_check_alone_opens_nothing(config: Callable[..., str]) -> None:
    assert call(config(scorer="unopenable")).exit_code == 0
    assert call(config(scorer="unopenable"), "--probe").exit_code == 1


def test_a_long_name_and_any_number_fit_too() -> None:
    lines = StringIO()
    gaps = [Gap(9, mean, abs(mean)) for mean in (-12.345, 1e-7, -0.0512, 150.0)]
    apart = Disagreement(9, 3e-6, 0.25)
    ways = {"again": apart, "reversed": apart, "alone": apart, "replica http://a": apart}
    teacher = TeacherFigures("a name of many more letters", 16, 0, None, 16, *gaps, ("end",), asked_again=ways)
    sampling = untouched_sampling([])
    figures = ProbeFigures(16, 16, 1, 1, 0, None, 16, 8, (teacher,), (), sampling, run_samples_otherwise=False)
    show_figures(figures, Console(file=lines, width=80))
    assert "weights:" not in lines.getvalue()  # the student's own
    shown = lines.getvalue().splitlines()
    assert all(len(line) <= 80 and "…" not in line for line in shown), lines.getvalue()
    assert shown[2].split()[-5:] == ["16/16", "<.001/<.001", "150/150", "-0.051/0.051", "-12.3/12.3"]
    assert shown[-3].split()[-4:] == ["<.001/0.250"] * 4
    for weights, said in (
        (apart, "<.001/0.250 from the student's own"),
        ("of none", "was not measured: of none"),
    ):
        lines = StringIO()
        show_figures(replace(figures, weights=weights), Console(file=lines, width=80))
        assert said in " ".join(lines.getvalue().split())
