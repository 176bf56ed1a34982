"""`distillkit report` from the command line."""

from pathlib import Path

import pytest
from helpers.written_runs import write_run
from typer.testing import CliRunner

from distillkit.cli.main import app


def test_it_says_where_the_page_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_run(Path(name), name=name)
    one = CliRunner().invoke(app, ["report", "a"])
    assert (one.exit_code, one.output.split()[:2]) == (0, ["report:", "a/report.html"])
    both = CliRunner().invoke(app, ["report", "a", "b", "-o", "both.html", "-q"])
    assert (both.exit_code, both.output) == (0, "both.html\n")
    assert Path("both.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(("words", "said"), [(["gone"], "gone: no such directory"), (["a", "-o", "no/x"], "no/x can")])
def test_what_is_wrong_is_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("a"))
    result = CliRunner().invoke(app, ["report", *words])
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {said}")
