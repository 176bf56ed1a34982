"""What each tracker has of a run, by its own reader."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distillkit_builtin.sinks.csv_file import read

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


def at_tensorboard(run_dir: Path) -> Kept:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    values: dict[int, dict[str, list[float]]] = {}
    for name in reader.Tags()["scalars"]:
        for each in reader.Scalars(name):
            values.setdefault(each.step, {}).setdefault(name, []).append(each.value)
    for each in reader.Scalars("train/reverse_kl"):
        values[each.step].setdefault("time/unix", []).append(each.wall_time)
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
