"""What the sinks for trackers share."""

import threading
from pathlib import Path

import pytest

from distillkit_builtin.sinks.tensorboard import markdown_cell
from distillkit_builtin.sinks.tracker import KeptRun, OnlyOnce, flattened, known, missing_package, without_secrets
from distillkit_builtin.sinks.trackio import quietly


def test_secrets_reach_no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    assert "hunter2" not in str(without_secrets({"a": {"b": ["x hunter2hunter2 y"]}}))
    monkeypatch.setenv("OTHER_TOKEN", 'with "quotes" and é')
    hidden = without_secrets({"a": ['with "quotes" and é'], 'with "quotes" and é': 1})
    assert hidden == {"a": ["***"], "***": 1}


def test_a_tracker_that_never_returns_silences_its_own_thread_alone(capsys: pytest.CaptureFixture[str]) -> None:
    begun, released = threading.Event(), threading.Event()

    def hangs() -> None:
        print("what the tracker says")
        begun.set()
        released.wait(10)

    thread = threading.Thread(target=quietly, args=(hangs,))
    thread.start()
    assert begun.wait(10)
    print("the run goes on")
    released.set()
    thread.join()
    print("and ends")
    assert capsys.readouterr().out == "the run goes on\nand ends\n"


def test_small_parts() -> None:
    assert known({"a": float("nan"), "b": float("inf"), "c": 1}) == {"c": 1.0}
    assert flattened({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
    assert markdown_cell("a|b\n<i>*x*") == "a\\|b<br>&lt;i>\\*x\\*"
    assert missing_package("x", "no_such_package_anywhere") is not None


def test_a_run_is_found_again(tmp_path: Path) -> None:
    kept = KeptRun(tmp_path / "x.json")
    assert kept.read() == {}
    kept.write(id="first")
    assert KeptRun(tmp_path / "x.json").read() == {"id": "first"}
    KeptRun(None).write(id="nowhere")
    assert KeptRun(None).read() == {}


def test_what_was_logged_is_not_logged_again() -> None:
    once = OnlyOnce.after({0: ["eval/a"], 1: ["train/b", "eval/a"], 2: ["train/b"]})
    assert once.new({"train/b": 1.0}, 2) == {}
    assert once.new({"eval/a": 1.0}, 2) == {"eval/a": 1.0}
    assert once.new({"train/b": 1.0}, 3) == {"train/b": 1.0}
    assert "step 2, which was" in str(once.notice("x"))
    assert OnlyOnce.after({}).notice("x") is None
