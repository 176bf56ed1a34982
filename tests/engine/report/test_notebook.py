"""A result in a notebook and as a figure."""

import sys
from pathlib import Path

import pytest
from helpers.html_outline import outline
from helpers.written_runs import step, write_run

from distillkit.errors import MissingExtraError
from distillkit.report.notebook import notebook_html
from distillkit.report.run_figure import run_figure
from distillkit.run_directory.result import RunResult

EVIL = "<script>alert(1)</script>"


def result(run_dir: Path) -> RunResult:
    return RunResult(run_dir, run_dir / "adapter", 20, {}, [], {})


def test_it_shows_curves_and_where_the_report_is(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run")
    page = outline(result(run_dir)._repr_html_())
    assert len(page.all("svg")) == 4
    (first, *_) = page.all("polyline")
    assert len(first.attributes["points"].split()) == 20
    assert f"distillkit report {run_dir}" in page.all("div")[0].text
    (run_dir / "report.html").touch()
    assert f"All of it: {run_dir}/report.html" in outline(notebook_html(run_dir)).all("div")[0].text


def test_it_escapes_and_a_single_point_is_drawn(tmp_path: Path) -> None:
    line = step(1, **{f"teacher_route/{EVIL}/reverse_kl": 0.3})
    page = outline(notebook_html(write_run(tmp_path / "run", [line], name=EVIL, error=EVIL)))
    assert not page.all("script")
    assert EVIL in page.all("div")[0].text


def test_a_figure_has_the_main_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = result(write_run(tmp_path / "run")).plot()
    assert [axes.get_title(loc="left") for axes in figure.axes][:2] == ["Reverse KL", "Length"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["all", "math", "code"]
    assert list(figure.axes[0].lines[0].get_xdata()) == list(range(1, 21))


def test_without_matplotlib_the_pip_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("distillkit.report.run_figure.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distillkit\[plot\]'"):
        run_figure(write_run(tmp_path / "run"))
