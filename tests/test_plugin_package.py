"""A stranger's wheel, built and installed, chosen by name."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import read_jsonl

HERE = Path(__file__).parent
FAKES = str(HERE / "helpers" / "fake_plugins.py")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both packages installed by pip from their own wheels."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    for name in ("plugin_package", "broken_plugin_package"):
        pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(wheels), str(HERE / name))
    assert len(list(wheels.glob("*.whl"))) == 2
    pip("install", "--no-deps", "--no-index", "--target", str(target), *map(str, wheels.glob("*.whl")))
    return target


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def distillkit(site: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command in a process that sees the packages."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "distillkit", *arguments]
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    return call


def test_it_is_listed_with_its_version_and_the_broken_one_with_its_error(
    distillkit: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    listed = json.loads(distillkit("plugins", "list", "--json").stdout)
    mine = {(p["role"], p["name"]): p for p in listed["plugins"] if p["distribution"] == "weather-distill"}
    assert set(mine) == {
        ("dataset", "reports"),
        ("router", "keyword"),
        ("scorer", "vowels"),
        ("weighting", "digits"),
        ("sink", "weather_csv"),
    }
    assert mine["router", "keyword"]["version"] == "1.2.3"
    assert mine["router", "keyword"]["class"] == "weather_distill.router.KeywordRouter"
    assert listed["broken"] == [
        {
            "entry_point": "broken-distill:broken",
            "error": "ModuleNotFoundError: No module named 'a_module_that_nobody_has_installed'",
        }
    ]
    assert "option" in distillkit("plugins", "show", "router", "keyword").stdout


def test_a_config_chooses_all_five_by_name(
    distillkit: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    reports = "EDDF: sun\n\nEGLL: rain\nat noon\n\n\nLFPG: wind\n\nEHAM: more rain\n"
    (tmp_path / "reports.txt").write_text(reports, encoding="utf-8")
    config = {
        "name": "weather",
        "data": {"source": {"name": "reports", "path": "reports.txt"}},
        "plugins": [FAKES],
        "student": {"name": "fake"},
        "teachers": [{"model": "m", "route_value": name, "scorer": {"name": "vowels"}} for name in ("dry", "wet")],
        "router": {"name": "keyword", "keyword": "rain"},
        "sampling": {"max_completion_tokens": 8},
        "train": {"prompt_groups_per_step": 2, "weightings": [{"name": "digits", "weight": 0}]},
        "sinks": [{"name": "weather_csv", "metric": "train/reverse_kl"}],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = distillkit("run", "config.yaml")
    assert done.returncode == 0, done.stderr
    entries = read_jsonl(tmp_path / "runs/weather/ledger.jsonl")
    assert {entry["row_id"].split("-")[0]: entry["route"] for entry in entries} == {
        "1": "dry",
        "2": "wet",
        "3": "dry",
        "4": "wet",
    }
    lines = (tmp_path / "runs/weather/metric.csv").read_text().splitlines()
    metrics = read_jsonl(tmp_path / "runs/weather/metrics.jsonl")
    assert all(row["weights/digits"] == row["weights/kept_fraction"] <= 1 for row in metrics)
    assert lines == ["step,train/reverse_kl", *(f"{row['step']},{row['train/reverse_kl']}" for row in metrics)]


def test_a_name_that_is_not_found_points_to_the_broken_package(
    distillkit: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = distillkit("plugins", "show", "router", "broken_router")
    assert done.returncode == 2
    assert "broken-distill:broken could not be loaded: ModuleNotFoundError" in done.stderr


def test_the_contracts_hold(tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE / "plugin_package" / "src"))
    try:
        from weather_distill.dataset import ReportsDataset
        from weather_distill.router import KeywordRouter
        from weather_distill.scorer import VowelScorer
        from weather_distill.sink import CsvSink
        from weather_distill.weighting import DigitsWeighting
    finally:
        sys.path.pop(0)
    from distillkit.testing import check_plugin

    reports = tmp_path / "reports.txt"
    reports.write_text("EDDF: sun\n\nno station\n\nEGLL: rain\nat noon", encoding="utf-8")
    for plugin in (ReportsDataset(path=str(reports)), KeywordRouter(), VowelScorer(), DigitsWeighting(), CsvSink()):
        check_plugin(plugin)
