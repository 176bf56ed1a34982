"""The code of the pages about losses, teachers that are mixed, and proofs runs, as a reader would run it."""

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import read_jsonl
from helpers.doc_blocks import QUICK, call, passes_its_own_tests
from helpers.doc_pages import TOP
from typer.testing import CliRunner

from distillkit.cli.main import app
from distillkit.cli.reporting import OUT


def test_the_loss_tutorial(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/write-a-loss.md")
    assert "cap" in call("plugins", "show", "loss", "squared_gap", "-p", "my_loss.py")
    assert "check: ok" in call("check", "squared.yaml")
    out = call("run", "squared.yaml")
    assert "12 rows, 3 steps, 24 completions, 1 teacher: short" in out
    assert "done: 3 steps, 24 completions trained, 0 failed" in out
    assert all(row["train/loss"] > 0 for row in read_jsonl(Path("runs/squared/metrics.jsonl")))
    call("run", "squared.yaml", "loss.cap=0.5", "name=half", *QUICK)
    passes_its_own_tests("test_my_loss.py")


def test_the_divergence_of_the_loss_tutorial(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/write-a-loss.md")
    code = [line for line in Path("my_divergence.py").read_text(encoding="utf-8").splitlines() if line]
    assert len(code) == 20
    assert "proven" in call("plugins", "prove", "alpha", "-p", "my_divergence.py")
    chosen = ("-p", "my_divergence.py", "loss={name: alpha, alpha: 0.3}", "name=alpha")
    call("run", "squared.yaml", *chosen, "train.max_steps=2")
    assert all(row["train/loss"] > 0 for row in read_jsonl(Path("runs/alpha/metrics.jsonl")))
    passes_its_own_tests("test_my_divergence.py")


def test_the_config_of_the_page_about_losses_runs(write_page: Callable[[str], None]) -> None:
    write_page("docs/losses.md")
    write_page("docs/tutorials/write-a-loss.md")
    call("run", "whole.yaml", "train.max_steps=2")
    assert all(row["train/loss"] > 0 for row in read_jsonl(Path("runs/whole/metrics.jsonl")))
    topk = "loss={name: divergence, support: teacher_topk, k: 20}"
    call("run", "whole.yaml", topk, "name=topk", *QUICK)


def test_a_reference_of_the_page_about_losses_reads_the_students_prompt_and_has_no_rows(
    write_page: Callable[[str], None],
) -> None:
    write_page("docs/losses.md")
    write_page("docs/tutorials/write-a-loss.md")
    call("run", "beyond.yaml", *QUICK)
    call("run", "beyond.yaml", "name=plain", "loss.extrapolate=null", *QUICK)
    for sample in read_jsonl(Path("runs/beyond/samples.jsonl")):
        assert (sample["route"], {*sample["teacher_logprobs"]}) == ("short", {"short"})
        assert "in one short sentence" in sample["teacher_prompts"]["short"]
        assert sample["teacher_prompts"]["start"] == sample["prompt"]
    plain, beyond = (read_jsonl(Path(f"runs/{name}/metrics.jsonl"))[0] for name in ("plain", "beyond"))
    # The student is still the reference: the gap to the teacher is stretched, and that to the anchor is none.
    assert beyond["train/abs_advantage"] == pytest.approx(1.25 * plain["train/abs_advantage"], rel=1e-3)


def test_several_teachers_of_the_page_about_losses_are_one_mixture(write_page: Callable[[str], None]) -> None:
    write_page("docs/losses.md")
    write_page("docs/tutorials/write-a-loss.md")
    call("run", "mixture.yaml", *QUICK)
    for sample in read_jsonl(Path("runs/mixture/samples.jsonl")):
        assert sample["teacher_logprobs"].keys() == {"short", "start"}


def test_the_page_on_proofs(write_page: Callable[[str], None]) -> None:
    write_page("docs/prove-a-loss.md")
    said = re.search(
        r"^> is zero \(\S+\): (.*?)\n\n", (TOP / "docs/prove-a-loss.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert said is not None
    with patch.object(OUT, "_width", 1000):  # COLUMNS is read when a console is made
        refused = CliRunner().invoke(app, ["plugins", "prove", "gap", "-p", "my_gap.py"])
    assert refused.exit_code == 1
    assert said[1].replace("\n> ", " ") in refused.output
    assert "not proven: expected gradient, teacher felt, another teacher" in refused.output
    script = Path("my_gap.py")
    broken = script.read_text(encoding="utf-8").partition("def gap(")[0]
    script.write_text(broken + Path("fixed_gap.py").read_text(encoding="utf-8"), encoding="utf-8")
    assert call("plugins", "prove", "gap", "-p", "my_gap.py").endswith("\nproven\n")
