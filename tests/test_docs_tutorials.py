"""The code that pages mark for tests runs, as a reader would run it."""

import json
import re
import runpy
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import read_jsonl
from helpers.doc_blocks import QUICK, blocks, call, passes_its_own_tests, runs_alone
from helpers.doc_pages import TOP
from typer.testing import CliRunner

from distillkit.cli.main import app
from distillkit.testing import check_plugin


def test_the_readmes_shortest_config_runs(write_page: Callable[[str], None]) -> None:
    write_page("README.md")
    write_page("docs/getting-started.md")
    call("run", "shortest.yaml", *QUICK)
    assert len(read_jsonl(Path("runs/run/samples.jsonl"))) == 1


def test_the_single_teacher_example_runs(write_page: Callable[[str], None]) -> None:
    write_page("docs/getting-started.md")
    call("run", "single.yaml", *QUICK)
    (sample,) = read_jsonl(Path("runs/single/samples.jsonl"))
    assert sample["question"].startswith("Solve 6 * 7.")


def test_the_routed_example_runs(write_page: Callable[[str], None]) -> None:
    write_page("docs/getting-started.md")
    call("run", "routed.yaml", *QUICK)
    prompts = {sample["route"]: sample["teacher_prompts"] for sample in read_jsonl(Path("runs/routed/samples.jsonl"))}
    assert set(prompts) == {"math-teacher", "arithmetic-teacher"}
    assert "The correct answer is 42" in prompts["math-teacher"]["math-teacher"]


def test_the_dataset_tutorial(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/README.md")
    write_page("docs/tutorials/write-a-dataset.md")
    runs_alone("make_database.py")
    assert "query" in call("plugins", "show", "dataset", "sqlite", "-p", "my_dataset.py")
    assert "questions.db row 1" in call("check", "sqlite.yaml")
    call("run", "sqlite.yaml", "train.max_steps=2")
    first = read_jsonl(Path("runs/sqlite/ledger.jsonl"))
    call("run", "sqlite.yaml", "train.max_steps=3", "--resume")
    trained = read_jsonl(Path("runs/sqlite/ledger.jsonl"))
    assert trained[:2] == first
    assert sorted(entry["row_id"].partition("-")[0] for entry in trained) == ["1", "2", "3"]
    with closing(sqlite3.connect("questions.db")) as database, database:
        database.execute("UPDATE questions SET answer = '43' WHERE id = 1")
    refused = CliRunner().invoke(app, ["run", "sqlite.yaml", "train.max_steps=4", "--resume"])
    assert refused.exit_code == 2
    assert "the rows changed" in refused.output
    passes_its_own_tests("test_my_dataset.py")


def test_the_dataset_of_many_files(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/README.md")
    write_page("docs/tutorials/write-a-dataset.md")
    for name in ("logs/a.log", "logs/sub/b.log"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).write_text("Why?\tSo.\n", encoding="utf-8")
    source = ("data.source={name: logs, folder: logs}", "data.eval_source=null", "-p", "my_logs.py")
    call("run", "sqlite.yaml", *source, "evaluators=[]")
    trained = {entry["row_id"].partition("-")[0] for entry in read_jsonl(Path("runs/sqlite/ledger.jsonl"))}
    assert trained == {"a.log:1", "sub/b.log:1"}
    Path("logs/sub/b.log").write_text("Why?\n", encoding="utf-8")
    refused = CliRunner().invoke(app, ["check", "sqlite.yaml", *source, "evaluators=[]"])
    assert "logs/sub/b.log:1: line: has no tab" in refused.output


def test_the_router_tutorial(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/README.md")
    write_page("docs/tutorials/write-a-router.md")
    assert "cutoff" in call("plugins", "show", "router", "length", "-p", "my_router.py")
    assert "short 1, long 1" in call("check", "length.yaml")
    assert "  short 0.000 (1)  long " in call("run", "length.yaml")
    call("run", "length.yaml", "router.cutoff=50", "name=fifty")
    assert [entry["route"] for entry in read_jsonl(Path("runs/fifty/ledger.jsonl"))] == ["short", "short"]
    runs_alone("from_python.py")
    routes = {entry["route"] for entry in read_jsonl(Path("runs/from-python/ledger.jsonl"))}
    assert routes == {"short", "long"}
    written = Path("runs/from-python/config.yaml").read_text(encoding="utf-8")
    assert "# NOT RE-RUNNABLE: router was passed in Python" in written
    passes_its_own_tests("test_my_router.py")


def test_the_scorer_tutorial(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/README.md")
    write_page("docs/tutorials/write-a-scorer.md")
    assert "share" in call("plugins", "show", "scorer", "words", "-p", "my_scorer.py")
    assert "check: ok" in call("check", "words.yaml")
    assert "done: 3 steps, 24 completions trained, 0 failed" in call("run", "words.yaml")
    first, _, last = (row["train/reverse_kl"] for row in read_jsonl(Path("runs/words/metrics.jsonl")))
    assert last < first
    passes_its_own_tests("test_my_scorer.py")


def test_the_scorer_of_the_tutorial_that_gives_more(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/write-a-scorer.md")
    with Path("my_scorer.py").open("a", encoding="utf-8") as script:
        script.write("\n\n" + Path("more.py").read_text(encoding="utf-8"))
    assert "words_with_more" in call("plugins", "list", "-p", "my_scorer.py")
    check_plugin(runpy.run_path("my_scorer.py")["WordScorerWithMore"]())


def test_the_weighting_tutorial(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/README.md")
    write_page("docs/tutorials/write-a-weighting.md")
    code = blocks("docs/tutorials/write-a-weighting.md")["my_weighting.py"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert "nats" in call("plugins", "show", "weighting", "within", "-p", "my_weighting.py")
    assert "within" in call("plugins", "list", "-p", "my_weighting.py")
    assert "check: ok" in call("check", "within.yaml")
    call("run", "within.yaml", "train.weightings.0.nats=3")
    rows = read_jsonl(Path("runs/within/metrics.jsonl"))
    assert len(rows) == 3
    assert all(row["weights/kept_fraction"] <= row["weights/truncated"] <= 1 for row in rows)
    assert all(0 < row["weights/within"] <= 1 for row in rows)
    passes_its_own_tests("test_my_weighting.py")


def test_the_page_on_several_teachers(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/README.md")
    write_page("docs/several-teachers.md")
    checked = " ".join(call("check", "shares.yaml").split())
    page = (TOP / "docs" / "several-teachers.md").read_text(encoding="utf-8")
    shown = re.search(r"```\n(rows .*?)```", page, re.DOTALL)
    assert shown
    for line in shown[1].splitlines():
        assert line == "..." or " ".join(line.split()) in checked
    call("run", "shares.yaml")
    for row in read_jsonl(Path("runs/shares/metrics.jsonl")):
        assert (row["teacher_route/long/scored"], row["teacher_route/short/scored"]) == (3, 1)
        assert row["teacher_route/long/weight"] == pytest.approx(0.5)
    routes = [entry["route"] for entry in read_jsonl(Path("runs/shares/ledger.jsonl"))]
    assert routes.count("long") == 9


def test_the_evaluator_tutorial(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/README.md")
    write_page("docs/tutorials/write-an-evaluator.md")
    assert "below" in call("plugins", "show", "evaluator", "surprise", "-p", "my_evaluator.py")
    assert "check: ok" in call("check", "surprise.yaml")
    out = call("run", "surprise.yaml")
    assert "held-out prompts after training (6 steps), before -> now" in out
    assert all(measure in out for measure in ("surprising tokens", "96% -> 73%", "prompt's gain"))
    found = json.loads(Path("runs/surprise/summary.json").read_text(encoding="utf-8"))["eval"]
    assert found["after"]["surprises"] < found["before"]["surprises"]
    assert found["after"]["routes"]["made-up"]["prompt_gain"] == 0
    assert "eval/surprises" in read_jsonl(Path("runs/surprise/metrics.jsonl"))[-1]
    passes_its_own_tests("test_my_evaluator.py")


def test_the_sink_tutorial(write_page: Callable[[str], None]) -> None:
    write_page("docs/tutorials/README.md")
    write_page("docs/tutorials/write-a-sink.md")
    assert "check: ok" in call("check", "steps.yaml")
    call("run", "steps.yaml")
    call("run", "steps.yaml", "--resume", "data.epochs=5")
    lines = Path("runs/steps/steps.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "step,train/reverse_kl,completions/mean_length"
    assert [line.partition(",")[0] for line in lines[1:]] == ["1", "2", "3", "4", "5"]
    passes_its_own_tests("test_my_sink.py")
