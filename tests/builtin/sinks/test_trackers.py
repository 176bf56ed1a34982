"""The same run at each tracker, read back by the tracker's own reader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

import distillkit
from builtin.sinks.trackers import READERS, Kept
from distillkit import RunConfig
from distillkit.errors import MissingExtraError, RunFailedError
from distillkit.run_directory.result import RunResult
from distillkit.testing import FakeStudent, check_plugin
from distillkit.training_data import Batch, StepResult
from distillkit_builtin.sinks.csv_file import CsvSink
from distillkit_builtin.sinks.tensorboard import TensorboardSink
from distillkit_builtin.sinks.trackio import TrackioSink

Make = Callable[..., RunConfig]


@pytest.fixture(params=sorted(READERS))
def tracker(request: pytest.FixtureRequest, mlflow_database: str) -> dict[str, Any]:
    """The options of a sink, in a project of its own."""
    name = str(request.param)
    if name != "csv":
        pytest.importorskip(name)
    project = request.node.name.replace("[", "-").replace("]", "")
    return {
        "name": name,
        **({"project": project} if name == "trackio" else {}),
        **({"tracking_uri": mlflow_database, "experiment": project} if name == "mlflow" else {}),
    }


@pytest.fixture
def held_out(jsonl: Callable[..., str]) -> dict[str, str]:
    rows = [{"messages": [{"role": "user", "content": "held | out <b>"}]}]
    return {"eval_path": jsonl(rows, "heldout.jsonl")}


def require_same(result: RunResult, found: Kept) -> None:
    """Each step of `metrics.jsonl` is there once, by the same names, and nothing else."""
    assert found.runs == 1
    assert sorted(found.values) == [row["step"] for row in result.metrics]
    for row in result.metrics:
        step = int(str(row["step"]))
        left_out = {"step", "time/eval"} | ({"time/unix"} if step == 0 else set())
        expected = {name: [value] for name, value in row.items() if name not in left_out and value is not None}
        there = {name: values for name, values in found.values[step].items() if name != "time/eval"}
        assert there.keys() == expected.keys()
        for name, values in there.items():
            assert values == pytest.approx(expected[name], rel=1e-12 if name == "time/unix" else 1e-6), name


def test_a_run_is_there_as_in_metrics_jsonl_with_config_samples_and_verdict(
    fake_config: Make, held_out: dict[str, str], tracker: dict[str, Any]
) -> None:
    result = distillkit.run(fake_config(data=held_out, train={"eval_every": 2}, sinks=[tracker]))
    assert result.summary["sink_errors"] == {}
    found = READERS[tracker["name"]](result.run_dir)
    require_same(result, found)
    if tracker["name"] == "csv":
        return
    assert '"prompt_groups_per_step": 2' in found.config
    assert "out" in found.samples
    assert "reverse KL" in found.ending
    assert ("FINISHED" if tracker["name"] == "mlflow" else "**completed**") in found.ending


class Stumbling(FakeStudent):
    """Cannot train the fourth step, the first time."""

    name: ClassVar[str] = "stumbling"
    stumbles: ClassVar[bool] = True

    async def train(self, batch: Batch) -> StepResult:
        if self.stumbles and self._steps_trained() == 3:
            raise RunFailedError("out of chalk")
        return await super().train(batch)

    def _steps_trained(self) -> int:
        type(self).trained += 1
        return type(self).trained - 1

    trained: ClassVar[int] = 0


def test_a_resumed_run_goes_on_in_the_same_run_and_doubles_nothing(
    fake_config: Make, held_out: dict[str, str], tracker: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stumbling, "trained", 0)

    def config() -> RunConfig:
        train = {"eval_every": 1, "save_every": 2, "keep_last": 5}
        return fake_config(data=held_out, student=Stumbling(), train=train, sinks=[tracker])

    with pytest.raises(RunFailedError):
        distillkit.run(config())
    found = READERS[tracker["name"]](Path(config().log_path.replace("{name}", "fake")))
    assert sorted(found.values) == [0, 1, 2, 3]
    if tracker["name"] != "csv":
        assert ("FAILED" if tracker["name"] == "mlflow" else "**failed**") in found.ending
    monkeypatch.setattr(Stumbling, "stumbles", False)
    result = distillkit.run(config(), resume=True, from_step=2)
    assert result.summary["sink_errors"] == {}
    found = READERS[tracker["name"]](result.run_dir)
    if tracker["name"] in ("trackio", "mlflow"):  # which keep what they had of a step: its times are other ones
        assert sorted(found.values) == [row["step"] for row in result.metrics]
        assert all(len(values) == 1 for step in found.values.values() for values in step.values())
        said = (result.run_dir / "run.log").read_text(encoding="utf-8")
        assert f"{tracker['name']} keeps what it had of step 3, which was trained again" in said
    else:
        require_same(result, found)
    if tracker["name"] != "csv":
        assert ("FINISHED" if tracker["name"] == "mlflow" else "**completed**") in found.ending


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "mlflow"])
def test_without_the_package_the_message_names_the_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, fake_config: Make
) -> None:
    monkeypatch.setattr("distillkit_builtin.sinks.tracker.find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=rf"sink '{name}' needs {name}: pip install 'distillkit\[{name}\]'"):
        distillkit.run(fake_config(sinks=[name]))


@pytest.mark.parametrize("sink", [CsvSink(), TensorboardSink(), TrackioSink(project="contract")])
def test_they_keep_their_contract(sink: Any, tmp_path: Path) -> None:
    check_plugin(sink)
