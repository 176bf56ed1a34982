"""What is odd and yet allowed goes through a whole run, and stands in its files as it came."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import question, read_jsonl

from distillkit import Registry, RunConfig
from distillkit.errors import InputError
from distillkit.loop.execute import execute
from distillkit.records import Failure, Rollout
from distillkit.run_directory.run_start import RunStart
from distillkit.testing import FakeStudent
from distillkit.types import SampleRequest

ODD = [
    "NUL \0 and escape \x1b[2J and bell \a",
    "a line separator \u2028, a mark \ufeff, right to left \u202e, not a character \uffff",
    "beyond the basic plane \U0001f98a \U0010ffff, combining e\u0301",
    "{{ template }} {% raw %} [bold]markup[/bold] %s {0} <|im_end|>",
    "\r\n\t ",
]
HALF = "half \ud83e"


async def test_odd_text_goes_through(
    fake_config: Callable[..., RunConfig], registry: Registry, jsonl: Callable[..., str]
) -> None:
    path = jsonl([question(text, expected_answer=text) for text in ODD])
    config = fake_config(
        data={"path": path, "eval_path": path},
        evaluators=["exact_match"],
        train={"samples_per_route": 9},
        sinks=["console"],
    )
    result = await execute(config, registry)
    with (result.run_dir / "samples.jsonl").open(encoding="utf-8") as file:  # str.splitlines would end a line at \u2028
        assert {json.loads(line)["question"] for line in file} == set(ODD)
    assert len(read_jsonl(result.run_dir / "ledger.jsonl")) == len(ODD)
    assert result.summary["status"] == "completed"


class HalfText(FakeStudent):
    """Gives text that no file takes, as a sampler that cuts a pair of surrogates does."""

    name: ClassVar[str] = "half"

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for drawn in super().sample(requests[1:]):
            yield replace(drawn, text=HALF) if isinstance(drawn, Rollout) else drawn
        yield Failure(requests[0], HALF)


async def test_half_a_character_from_a_plugin_is_no_reason_to_lose_a_run(
    fake_config: Callable[..., RunConfig], registry: Registry
) -> None:
    registry.add(HalfText)
    train = {"samples_per_route": 9, "max_failed_fraction": 1.0}
    config = fake_config(student={"name": "half"}, train=train, sinks=["console"])
    result = await execute(config, registry)
    assert {sample["text"] for sample in read_jsonl(result.run_dir / "samples.jsonl")} == {HALF}
    reasons = {
        completion.get("reason")
        for entry in read_jsonl(result.run_dir / "ledger.jsonl")
        for completion in entry["completions"]
    }
    assert HALF in reasons
    json.loads((result.run_dir / "summary.json").read_text(encoding="utf-8"))


async def test_a_run_in_a_directory_that_is_not_its_own_removes_nothing(
    fake_config: Callable[..., RunConfig], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project's folder has a `config.yaml` too."""
    project = tmp_path / "project"
    (project / "notes").mkdir(parents=True)
    for name in ("config.yaml", "train.jsonl", "notes/idea"):
        (project / name).write_text("mine")
    monkeypatch.chdir(project)
    for log_path in (".", "", str(project), "../project"):
        with pytest.raises(InputError, match="choose another log_path"):
            await execute(fake_config(log_path=log_path), registry)
        with pytest.raises(InputError, match="choose another log_path"):
            await execute(fake_config(log_path=log_path), registry, RunStart(overwrite=True))
    assert sorted(path.name for path in project.rglob("*") if path.name != ".lock") == [
        "config.yaml",
        "idea",
        "notes",
        "train.jsonl",
    ]
    assert (project / "train.jsonl").read_text() == "mine"


@pytest.mark.parametrize("log_path", ["a\0b", "a\ud800", "x" * 300, "/dev/null/x", "/proc/x"])
async def test_a_log_path_that_cannot_be(
    fake_config: Callable[..., RunConfig], registry: Registry, log_path: str
) -> None:
    with pytest.raises(InputError, match="choose another log_path"):
        await execute(fake_config(log_path=log_path), registry)
