"""Sink `mlflow`: a run at an MLflow server, or in a database in the run's directory."""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, JsonValue, PrivateAttr

from distillkit import CheckReport, RunContext
from distillkit_builtin.sinks.tracker import (
    COLUMNS,
    Ending,
    KeptRun,
    OnlyOnce,
    Sample,
    UploadsWeights,
    flattened,
    missing_package,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEPT, FOLDER, DATABASE = "mlflow.json", "mlflow", "mlflow.db"
SQLITE = "sqlite:///"
ENDINGS: Mapping[str, str] = {"completed": "FINISHED", "interrupted": "KILLED"}
REFUSED = re.compile(r"[^A-Za-z0-9_\-. /]")
PARAMS_AT_ONCE, LONGEST_PARAM = 100, 6000
"""What MLflow takes."""


class MlflowSink(UploadsWeights):
    """Metrics, the config as parameters, some completions and the summary at MLflow.

    Without a server it writes a database into `mlflow/` of the run's directory. A character of a metric's name that
    MLflow refuses becomes a colon with its hexadecimal code: the `+` of a row's several teachers is `:2b`.
    """

    name: ClassVar[str] = "mlflow"
    libraries: ClassVar[frozenset[str]] = frozenset({"mlflow-skinny", "mlflow"})
    writes: ClassVar[frozenset[str]] = frozenset({KEPT, FOLDER})
    closing_seconds: ClassVar[float] = 60.0

    tracking_uri: str | None = Field(
        None, description="The server or database; null: MLFLOW_TRACKING_URI, else a database in the run's directory."
    )
    experiment: str = Field("distillkit", min_length=1, description="The experiment.")
    run_name: str | None = Field(None, description="How the run is called there; null: the run's name.")
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of the run.")

    _client: "MlflowClient | None" = PrivateAttr(None)
    _id: str = PrivateAttr("")
    _once: OnlyOnce = PrivateAttr(default_factory=lambda: OnlyOnce.after({}))
    _notify: Callable[[str], None] | None = PrivateAttr(None)

    def check(self, run: RunContext) -> CheckReport:
        """Report where it goes, and what is not installed."""
        where = self._address(None) or "a database in the run's directory"
        return CheckReport((f"experiment {self.experiment}, {where}",), missing=missing_package(self.name, "mlflow"))

    async def open(self, run: RunContext) -> None:
        """Begin the run there, or go on with the one that this run began; a notice says where."""
        where = self._address(run.run_dir)
        if where is None:
            return
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for each in ("mlflow", "alembic"):  # they tell of every table that they make
            logging.getLogger(each).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        self._client, self._notify = MlflowClient(tracking_uri=where), run.notify
        kept = KeptRun.of(run, KEPT)
        known = kept.read()
        if known.get("tracking_uri") == where:
            self._id, self._once = known["run_id"], _logged(self._client, known["run_id"])
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._begin(self._client, run)
            kept.write(tracking_uri=where, run_id=self._id)
        run.notify(f"mlflow: run {self._id} of experiment {self.experiment}, {where}")

    def _begin(self, client: "MlflowClient", run: RunContext) -> str:
        experiment = client.get_experiment_by_name(self.experiment)
        files = beside_database(client.tracking_uri)
        number = experiment.experiment_id if experiment else client.create_experiment(self.experiment, files)
        return str(client.create_run(number, run_name=self.run_name or run.name, tags=dict(self.tags)).info.run_id)

    def _address(self, run_dir: Path | None) -> str | None:
        """The server or database; None where there is no directory for one."""
        given = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if given or run_dir is None:
            return given or None
        folder = (run_dir / FOLDER).resolve()
        folder.mkdir(exist_ok=True)
        return f"{SQLITE}{folder / DATABASE}"

    @property
    def is_open(self) -> bool:
        """Whether the run has begun there."""
        return self._client is not None

    def begin(self, config: dict[str, JsonValue], first_step: int) -> None:
        """Keep the config as a file; and, of a run that begins, as parameters, which MLflow never changes."""
        from mlflow.entities import Param

        if self._client is None:
            return
        self._client.log_dict(self._id, config, "config.json")
        given = self._client.get_run(self._id).data.params
        params = [
            Param(mlflow_name(name), _shown(value)) for name, value in flattened(config).items() if value is not None
        ]
        new = [param for param in params if param.key not in given]
        for start in range(0, len(new), PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=new[start : start + PARAMS_AT_ONCE])

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log what is not there yet."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        new = [Metric(mlflow_name(name), value, now, step) for name, value in self._once.new(metrics, step).items()]
        if self._client is not None and new:
            self._client.log_batch(self._id, metrics=new)

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """Keep a table, as MLflow's own are kept."""
        if self._client is not None:
            table = {"columns": list(COLUMNS), "data": [list(sample.cells) for sample in samples]}
            self._client.log_dict(self._id, table, f"samples/step-{step}.json")

    def end(self, ending: Ending) -> None:
        """Keep the summary, the verdict as the run's description, and the weights where they are wanted."""
        client = self._client
        if client is None:
            return
        client.log_dict(self._id, ending.summary, "summary.json")
        client.set_tag(self._id, "mlflow.note.content", f"{ending.status}\n\n{ending.verdict}")
        said = self._once.notice(self.name)
        if said is not None and self._notify is not None:
            self._notify(said)
        if self.upload_weights and ending.status == "completed" and ending.weights is not None:
            log = client.log_artifacts if ending.weights.is_dir() else client.log_artifact
            log(self._id, str(ending.weights), ending.weights.name if ending.weights.is_dir() else "weights")
        client.set_terminated(self._id, ENDINGS.get(ending.status, "FAILED"))

    async def close(self) -> None:
        """Forget it."""
        self._client = None


def beside_database(address: str) -> str | None:
    """Where the files of a database on this machine are kept: MLflow would take the working directory. Else None."""
    path = address.removeprefix(SQLITE)
    return None if path == address else (Path(path).resolve().parent / "artifacts").as_uri()


def mlflow_name(name: str) -> str:
    """A name as MLflow takes it; two never become one."""
    return REFUSED.sub(lambda found: f":{ord(found.group()):x}", name)


def _shown(value: JsonValue) -> str:
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:LONGEST_PARAM]


def _logged(client: "MlflowClient", run_id: str) -> OnlyOnce:
    """What it has of the run already."""
    found: dict[int, list[str]] = {}
    for name in client.get_run(run_id).data.metrics:
        newest = max(each.step for each in client.get_metric_history(run_id, name))
        found.setdefault(newest, []).append(name)
    return OnlyOnce.after(found)
