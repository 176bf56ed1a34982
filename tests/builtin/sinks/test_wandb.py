"""The sink `wandb`, offline: what a run leaves is read back with wandb's own types of records."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

import distillkit
from builtin.sinks.wandb_records import records_in
from distillkit import RunConfig
from distillkit.errors import InputError, MissingExtraError, RunFailedError
from distillkit.events import RunFinished, StepFinished
from distillkit.testing import FakeStudent, check_plugin, make_context
from distillkit.training_data import Batch, StepResult
from distillkit_builtin.sinks.tracker import missing_package
from distillkit_builtin.sinks.wandb import WandbSink, resolve_mode

Make = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def wandb() -> Iterator[ModuleType]:
    module = pytest.importorskip("wandb")
    yield module
    module.teardown()


def written(folder: Path) -> dict[str, Any]:
    """What the newest offline run below `folder` holds: its config, history by step, summary and exit code."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # its process has written everything once it is gone
    (path,) = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))[-1:]
    found: dict[str, Any] = {"config": {}, "history": {}, "summary": {}, "exit_code": None, "run": None}
    for data in records_in(path):
        record = Record()
        record.ParseFromString(data)
        values = {"summary": found["summary"], "config": found["config"]}
        match record.WhichOneof("record_type"):
            case "run":
                found["run"] = record.run
            case "config" | "summary" as kind:
                for item in getattr(record, kind).update:
                    values[kind]["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
            case "history":
                items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                found["history"].setdefault(record.history.step.num, {}).update(items)
            case "exit":
                found["exit_code"] = record.exit.exit_code
    return found


def test_a_run_without_a_key_leaves_a_folder_to_upload(
    wandb: ModuleType, fake_config: Make, jsonl: Callable[..., str]
) -> None:
    rows = [{"messages": [{"role": "user", "content": "held out"}]}]
    config = fake_config(
        data={"eval_path": jsonl(rows, "heldout.jsonl")},
        sinks=[{"name": "wandb", "project": "p", "tags": ["a"], "group": "g"}, "list"],
    )
    result = distillkit.run(config)
    assert result.summary["sink_errors"] == {}
    found = written(result.run_dir)
    assert (found["run"].project, found["run"].display_name, found["run"].run_group) == ("p", "fake", "g")
    assert list(found["run"].tags) == ["a"]
    assert found["config"]["train"]["prompt_groups_per_step"] == 2
    assert found["config"]["student"]["name"] == "fake"
    for row in result.metrics:
        values = {name: value for name, value in row.items() if name not in ("step", "time/eval", "time/unix")}
        step = found["history"][row["step"]]
        assert {name: step[name] for name in values} == pytest.approx(values)
    assert "eval/reverse_kl" in found["history"][0]
    assert found["history"][0]["samples/_type"] == "table-file"
    assert found["summary"]["status"] == "completed"
    assert found["exit_code"] == 0
    said = (result.run_dir / "run.log").read_text(encoding="utf-8")
    assert "wandb: project p, offline, since WANDB_API_KEY is not set; upload it with: wandb sync " in said
    assert not wandb.run


def test_a_failed_run_ends_with_its_exit_code(wandb: ModuleType, fake_config: Make, tmp_path: Path) -> None:
    class Broken(FakeStudent):
        """Cannot train."""

        name: ClassVar[str] = "broken"

        async def train(self, batch: Batch) -> StepResult:
            raise RunFailedError("out of chalk")

    with pytest.raises(RunFailedError):
        distillkit.run(fake_config(student=Broken(), sinks=["wandb"]))
    found = written(tmp_path / "runs" / "fake")
    assert found["exit_code"] == 1
    assert (found["summary"]["status"], found["summary"]["error"]) == ("failed", "RunFailedError: out of chalk")


async def test_an_interrupted_run_ends_as_one(wandb: ModuleType, tmp_path: Path) -> None:
    sink = WandbSink(dir=str(tmp_path))
    await sink.open(make_context(notify=lambda message: None))
    sink.emit(RunFinished({"status": "interrupted"}, "KeyboardInterrupt"))
    await sink.close()
    await sink.close()
    assert written(tmp_path)["exit_code"] == 130


async def test_a_resumed_run_is_the_same_run(wandb: ModuleType, tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        sink = WandbSink(mode="offline")
        await sink.open(replace(make_context(notify=lambda message: None), run_dir=tmp_path))
        await sink.close()
        ids.append(written(tmp_path)["run"].run_id)
    assert ids[0] == ids[1] == json.loads((tmp_path / "wandb.json").read_text(encoding="utf-8"))["id"]


def test_the_mode_is_what_was_asked_for_else_what_a_key_allows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [resolve_mode(mode) for mode in ("auto", "online", "offline")] == ["offline", "online", "offline"]
    with pytest.raises(InputError, match="mode is online, but WANDB_API_KEY is not set"):
        WandbSink(mode="online").check(make_context())
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n", encoding="utf-8")
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    assert resolve_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode("auto") == "offline"


def test_check_says_where_it_goes_and_not_with_which_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    report = WandbSink(entity="team", project="p").check(make_context())
    assert report.notes == ("project team/p, online",)
    assert "wandb" not in sys.modules or report.missing is None


def test_without_the_package_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch, fake_config: Make) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"sink 'wandb' needs wandb: pip install 'distillkit\[wandb\]'"):
        distillkit.run(fake_config(sinks=["wandb"]))


def test_a_folder_of_earlier_runs_is_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert missing_package("wandb", "wandb") is not None


class Broken:
    """A wandb run that raises whatever it is asked."""

    dir = url = "somewhere"

    def __getattr__(self, name: str) -> Any:
        raise OSError(f"no {name} today")


def test_wandbs_exceptions_end_no_run(monkeypatch: pytest.MonkeyPatch, fake_config: Make) -> None:
    monkeypatch.setattr(WandbSink, "_begin", lambda self, run: Broken())
    result = distillkit.run(fake_config(sinks=["wandb"]))
    assert result.summary["status"] == "completed"
    assert result.summary["sink_errors"]["wandb"] > 3


def test_a_wandb_that_cannot_begin_ends_no_run(monkeypatch: pytest.MonkeyPatch, fake_config: Make) -> None:
    def begin(self: WandbSink, run: object) -> None:
        raise OSError("no service today")

    monkeypatch.setattr(WandbSink, "_begin", begin)
    result = distillkit.run(fake_config(sinks=["wandb"]))
    log = (result.run_dir / "run.log").read_text(encoding="utf-8")
    assert "sink 'wandb' could not be opened and hears nothing: OSError: no service today" in log


def test_before_it_is_open_it_hears_nothing() -> None:
    WandbSink().emit(StepFinished(1, {"train/reverse_kl": 1.0}))


def test_it_keeps_its_contract(wandb: ModuleType, tmp_path: Path) -> None:
    check_plugin(WandbSink(dir=str(tmp_path), mode="offline"))
