"""What the sinks for trackers share, and the same run at each of them, read back by the tracker's own reader."""

import csv
import io
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import distillkit
from distillkit import RunConfig
from distillkit.errors import MissingExtraError, RunFailedError
from distillkit.run_directory.result import RunResult
from distillkit.testing import FakeStudent, check_plugin
from distillkit.training_data import Batch, StepResult
from distillkit_builtin.sinks import csv_file
from distillkit_builtin.sinks.csv_file import CsvSink, read
from distillkit_builtin.sinks.mlflow import MlflowSink, beside_database, mlflow_name
from distillkit_builtin.sinks.tensorboard import TensorboardSink, markdown_cell
from distillkit_builtin.sinks.tracker import KeptRun, OnlyOnce, flattened, known, missing_package, without_secrets
from distillkit_builtin.sinks.trackio import TrackioSink, quietly

Make = Callable[..., RunConfig]
Found = Mapping[int, Mapping[str, list[float]]]
"""By step and name all values that a tracker has."""


@dataclass(frozen=True)
class Kept:
    """What a tracker has of a run."""

    values: Found
    config: str
    samples: str
    ending: str
    runs: int = 1


@pytest.fixture(scope="session")
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trackio")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests: to make its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, trackio_folder: Path) -> None:
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(trackio_folder))  # read once, when trackio is imported


def at_tensorboard(run_dir: Path) -> Kept:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    values: dict[int, dict[str, list[float]]] = {}
    for name in reader.Tags()["scalars"]:
        for each in reader.Scalars(name):
            values.setdefault(each.step, {}).setdefault(name, []).append(each.value)
    text = {
        name: [each.tensor_proto.string_val[0].decode() for each in reader.Tensors(name)]
        for name in reader.Tags()["tensors"]
    }
    ends = [*text.get("verdict", []), *text.get("summary", [])]
    return Kept(values, text["config"][-1], "\n".join(text.get("samples", [])), "\n".join(ends))


def at_trackio(run_dir: Path) -> Kept:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    kept = json.loads((run_dir / "trackio.json").read_text(encoding="utf-8"))
    runs = [run for run in trackio.Api().runs(kept["project"]) if run.name == kept["name"]]
    values: dict[int, dict[str, list[float]]] = {}
    samples, ends = [], []
    for row in SQLiteStorage.get_logs(kept["project"], kept["name"]):
        for name, value in row.items():
            if name == "samples":
                samples.append(json.dumps(value))
            elif name == "verdict":
                ends.append(json.dumps(value))
            elif name not in ("step", "timestamp"):
                values.setdefault(row["step"], {}).setdefault(name, []).append(value)
    return Kept(values, json.dumps(runs[0].config), "\n".join(samples), "\n".join(ends), len(runs))


def at_mlflow(run_dir: Path) -> Kept:
    from mlflow import MlflowClient

    kept = json.loads((run_dir / "mlflow.json").read_text(encoding="utf-8"))
    client = MlflowClient(tracking_uri=kept["tracking_uri"])
    run = client.get_run(kept["run_id"])
    values: dict[int, dict[str, list[float]]] = {}
    for name in run.data.metrics:
        for each in client.get_metric_history(kept["run_id"], name):
            values.setdefault(each.step, {}).setdefault(name, []).append(each.value)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    samples = "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("samples/*")))
    ending = f"{run.info.status} {run.data.tags.get('mlflow.note.content')}"
    assert run.data.params["train.prompt_groups_per_step"] == "2"
    runs = client.search_runs([run.info.experiment_id])
    config = (folder / "config.json").read_text(encoding="utf-8")
    return Kept(values, config, samples, ending, len(runs))


def at_csv(run_dir: Path) -> Kept:
    values = {
        int(row["step"]): {name: [float(cell)] for name, cell in row.items() if name != "step" and cell}
        for row in read(run_dir / "metrics.csv")
    }
    return Kept(values, "", "", "")


READERS: dict[str, Callable[[Path], Kept]] = {
    "tensorboard": at_tensorboard,
    "trackio": at_trackio,
    "mlflow": at_mlflow,
    "csv": at_csv,
}
STATUS = {"tensorboard": "**{}**", "trackio": "**{}**"}


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
            assert values == pytest.approx(expected[name], rel=1e-6), name


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


def test_mlflow_keeps_its_contract(mlflow_database: str) -> None:
    pytest.importorskip("mlflow")
    check_plugin(MlflowSink(tracking_uri=mlflow_database, experiment="contract"))


def test_the_weights_are_kept_where_that_is_asked_for(fake_config: Make, mlflow_database: str) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    def files(**options: Any) -> list[str]:
        sink = {"name": "mlflow", "tracking_uri": mlflow_database, "experiment": "weights", **options}
        result = distillkit.run(fake_config(sinks=[sink]), overwrite=True)
        run = json.loads((result.run_dir / "mlflow.json").read_text(encoding="utf-8"))["run_id"]
        return sorted(each.path for each in MlflowClient(tracking_uri=mlflow_database).list_artifacts(run))

    assert files() == ["config.json", "summary.json"]
    assert set(files(upload_weights=True)) > {"config.json", "summary.json"}


def test_files_of_a_database_stand_beside_it(tmp_path: Path) -> None:
    assert beside_database(f"sqlite:///{tmp_path}/x/mlflow.db") == (tmp_path / "x" / "artifacts").as_uri()
    assert beside_database("https://mlflow.example") is None


def test_names_that_mlflow_refuses_stay_different() -> None:
    assert mlflow_name("eval_route/a+b/x") == "eval_route/a:2bb/x"
    assert len({mlflow_name(name) for name in ("a+b", "a:2bb", "a b", "a_b", "aéb")}) == 5


def test_columns_of_a_csv_may_be_chosen(fake_config: Make) -> None:
    result = distillkit.run(fake_config(sinks=[{"name": "csv", "columns": ["train/reverse_kl"]}]))
    with (result.run_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "train/reverse_kl"]
    assert [float(row[1]) for row in rows[1:]] == [row["train/reverse_kl"] for row in result.metrics]


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


def test_a_row_that_was_cut_off_in_its_last_cell_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,a,b\n1,0.5,0.25\n2,0.5,0.2", encoding="utf-8")
    assert [row["step"] for row in read(path)] == ["1"]


def test_a_row_that_does_not_fit_on_the_disk_leaves_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, path = CsvSink(), tmp_path / "metrics.csv"
    sink._begin(path, 1)
    sink._add(path, 1, {"a": 1.0})
    whole = path.read_bytes()

    write, left = csv_file._write, [1, 3]  # of each row that is written, the first bytes fit

    def full(file: io.FileIO, place: int, data: bytes) -> None:
        if data in whole:  # what stood there fits again
            return write(file, place, data)
        write(file, place, data[: left.pop()])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(csv_file, "_write", full)
        for step in (1, 2):  # the first is there already
            with pytest.raises(OSError, match="No space"):
                sink._add(path, step, {"a": 2.0})
            assert path.read_bytes() == whole
    sink._add(path, 2, {"a": 2.5})
    sink._add(path, 3, {"a": 3.0})
    assert [(row["step"], row["a"]) for row in read(path)] == [("1", "1.0"), ("2", "2.5"), ("3", "3.0")]


def test_an_evaluation_replaces_the_last_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, path = CsvSink(), tmp_path / "metrics.csv"
    sink._begin(path, 1)
    sink._add(path, 1, {"a": 1.0, "eval/b": 9.0})
    monkeypatch.setattr(CsvSink, "_rewrite", None)  # a call of it would fail
    for step in (2, 3):
        sink._add(path, step, {"a": float(step)})
        sink._add(path, step, {"eval/b": 0.5})
    assert path.read_text(encoding="utf-8").split() == ["step,a,eval/b", "1,1.0,9.0", "2,2.0,0.5", "3,3.0,0.5"]


def test_a_file_that_somebody_else_has_changed_is_written_whole(tmp_path: Path) -> None:
    sink, path = CsvSink(), tmp_path / "metrics.csv"
    sink._begin(path, 1)
    sink._add(path, 1, {"a": 1.0})
    path.write_text("step,a\n1,1.0\n", encoding="utf-8")  # line ends of another program
    sink._add(path, 2, {"a": 2.0})
    assert [(row["step"], row["a"]) for row in read(path)] == [("1", "1.0"), ("2", "2.0")]


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
