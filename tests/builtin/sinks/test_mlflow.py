"""Sink `mlflow`: its files, its names, and the weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import distillkit
from distillkit import RunConfig
from distillkit.testing import check_plugin
from distillkit_builtin.sinks.mlflow import MlflowSink, beside_database, mlflow_name

Make = Callable[..., RunConfig]


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
