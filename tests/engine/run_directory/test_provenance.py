"""`summary.json` says where the numbers come from, and `run.log` tells the run's story."""

import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl
from pydantic import JsonValue

import distillkit
from distillkit import RunConfig
from distillkit.config.load import load_config
from distillkit.context import RunContext
from distillkit.run_directory.directory import run_directory
from distillkit.run_directory.provenance import command_line
from distillkit.testing import FakeScorer, FakeStudent

Make = Callable[..., RunConfig]


class Known(FakeStudent):
    """Knows what it was resolved to once it is open."""

    name: ClassVar[str] = "known"
    libraries: ClassVar[frozenset[str]] = frozenset({"numpy", "no-such-distribution"})

    async def open(self, run: RunContext) -> None:
        self.__dict__["opened"] = True

    def provenance(self) -> dict[str, JsonValue]:
        assert self.__dict__["opened"]
        return {"device": "abacus", "parameters": 257, "key": os.environ.get("SOME_API_KEY")}


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_the_summary_says_what_was_resolved_by_which_versions_and_when(
    fake_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdef-123456")
    monkeypatch.setattr(sys, "argv", ["/home/me/bin/distillkit", "run", "my config.yaml", "key=abcdef-123456"])
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        result = distillkit.run(fake_config(student=Known()))
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    found: Any = result.summary["provenance"]
    assert summary_of(result.run_dir)["provenance"] == found
    assert found["command"] == "distillkit run 'my config.yaml' key=***"
    assert found["versions"].keys() == {"python", "distillkit", "numpy"}
    assert found["plugins"]["student"] == {"name": "known", "device": "abacus", "parameters": 257, "key": "***"}
    assert found["plugins"]["loss"] == {"name": "importance_sampling"}
    started, ended = (datetime.fromisoformat(found[name]) for name in ("started", "ended"))
    assert started <= ended
    assert found["started"].endswith("+05:30")
    assert (found["resumed_after"], found["processes"], found["scripts"]) == (None, 1, {})
    assert socket.gethostname() not in json.dumps(found)
    assert str(Path.cwd()) not in json.dumps(found)


@pytest.mark.parametrize("removed", [False, True], ids=["there", "gone when the run ends"])
def test_a_script_is_there_by_the_hash_of_its_content(
    tmp_path: Path, jsonl: Callable[..., str], *, removed: bool
) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "from pathlib import Path\nfrom distillkit.testing import FakeScorer, FakeStudent\n\n\n"
        "class Mine(FakeScorer):\n    name = 'm'\n\n    async def open(self, run):\n"
        f"        {removed} and Path(__file__).unlink()\n"
    )
    fakes = Path(__file__).parents[2] / "helpers" / "fake_plugins.py"
    config, _ = load_config(
        [],
        scripts=[str(script), str(fakes)],
        extra={
            "name": "scripted",
            "log_path": str(tmp_path / "{name}"),
            "data": {"path": jsonl([question("one"), question("two")])},
            "student": "fake",
            "teachers": [{"model": "t", "scorer": "m"}],
            "train": {"prompt_groups_per_step": 1},
            "sinks": [],
        },
    )
    hashes = {path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in (script, Path(fakes))}
    result = distillkit.run(config)
    scripts: Any = result.summary["provenance"]["scripts"]  # type: ignore[call-overload,index]
    assert scripts == hashes
    assert script.exists() is not removed


def test_a_run_that_was_killed_has_a_summary_that_does_not_say_that_it_is_complete(fake_config: Make) -> None:
    seen: list[dict[str, Any]] = []
    folder = run_directory(fake_config())

    class Looking(FakeStudent):
        """Reads the summary while it trains."""

        name: ClassVar[str] = "fake"

        async def train(self, batch: Any) -> Any:
            seen.append(summary_of(folder))
            return await super().train(batch)

    plugins = [FakeStudent, FakeScorer]
    distillkit.run(fake_config(student=Looking(), train={"max_steps": 2}), plugins=plugins)
    distillkit.run(fake_config(student=Looking(), train={"max_steps": 3}), plugins=plugins, resume=True)
    assert [(summary["status"], summary["provenance"]["ended"]) for summary in seen] == [("running", None)] * 3
    assert [summary["provenance"]["resumed_after"] for summary in seen] == [None, None, 2]
    assert [summary["steps"] for summary in seen] == [0, 0, 2]


def test_every_line_of_the_metrics_has_a_time(fake_config: Make, jsonl: Callable[..., str]) -> None:
    before = time.time()
    config = fake_config(data={"eval_path": jsonl([question("held out")], "heldout.jsonl")})
    result = distillkit.run(config, plugins=[FakeStudent, FakeScorer])
    times = [row["time/unix"] for row in read_jsonl(result.run_dir / "metrics.jsonl")]
    assert len(times) == 6
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time()


def test_the_log_tells_the_runs_story(fake_config: Make, jsonl: Callable[..., str]) -> None:
    config = fake_config(
        student=Known(),
        data={"eval_path": jsonl([question("held out")], "heldout.jsonl")},
        train={"max_steps": 2, "save_every": 1},
        evaluators=["reverse_kl"],
        probe={"at_start": "never"},
    )
    result = distillkit.run(config)
    lines = (result.run_dir / "run.log").read_text().splitlines()
    story = [line.partition(" INFO ")[2] for line in lines if " INFO " in line]
    parts = [
        "run 'fake' begins, by ",
        "teacher 't': 10 of 10 rows have no teacher_messages",
        "teacher 't': 1 of 1 held-out row has no teacher_messages",
        "opened student (known) in ",
        "student: device abacus, parameters 257",
        "everything is loaded; step 1 of 2 comes next, 4 rows, 8 completions in all; learning rate 1, a step",
        "evaluation before training, at step 0: reverse KL, nats a token ",
        "step 1: reverse KL ",
        f"checkpoint of step 1: {result.run_dir}/checkpoints/step-1, in ",
        "step 2: reverse KL ",
        f"checkpoint of step 2: {result.run_dir}/checkpoints/step-2, in ",
        "evaluation after training, at step 2: reverse KL, nats a token ",
        "Before -> after 2 steps, on 1 held-out row",
        "the run is over: completed after step 2, ",
    ]
    verdict = next(number for number, line in enumerate(story) if line.startswith("Before -> "))
    del story[verdict + 1 : -1]
    assert [line[: len(part)] for line, part in zip(story, parts, strict=True)] == parts
    assert story[-1].endswith(f"weights in {result.adapter_path}")
    (told,) = [line for line in story if line.startswith("step 2")]
    assert ", tokens " in told
    assert " s (sampling " in told


def test_the_log_of_a_run_that_failed_ends_with_why(fake_config: Make) -> None:
    class Failing(FakeScorer):
        """Fails at once."""

        name: ClassVar[str] = "failing"

        async def score(self, requests: Any) -> Any:
            raise ZeroDivisionError("no teacher")
            yield

    with pytest.raises(ZeroDivisionError):
        distillkit.run(fake_config(teachers=[{"model": "t", "scorer": Failing()}], student=FakeStudent()))
    last = (run_directory(fake_config()) / "run.log").read_text().splitlines()[-1]
    assert "the run is over: failed after step 0, " in last
    assert "; ZeroDivisionError: no teacher (raised by scorer 'failing'" in last


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/usr/bin/distillkit", "check", "a.yaml"], "distillkit check a.yaml"),
        (["/x/distillkit/__main__.py", "run", "a b"], "python -m distillkit run 'a b'"),
        (["train.py"], "train.py"),
        ([""], ""),
    ],
)
def test_a_command_is_as_a_shell_takes_it(monkeypatch: pytest.MonkeyPatch, argv: list[str], expected: str) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert command_line() == expected


def test_the_command_is_as_typed_with_its_paths_and_without_where_the_program_lies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/venv/bin/distillkit", "run", f"{tmp_path}/a config.yaml"])
    assert command_line() == f"distillkit run '{tmp_path}/a config.yaml'"
