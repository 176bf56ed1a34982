"""Runs on a real Tinker server learn; killed and resumed, with either SDK, they end as one that was not killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import read_jsonl

from servers.short_rows import write_short_rows
from servers.skyrl.skyrl_process import SkyrlProcess
from servers.skyrl.tinker_runs import config_on, ended, kill_behind_checkpoint, read_json, start

pytestmark = pytest.mark.servers
STEPS = 8
SAME = ("train/loss", "train/grad_norm", "train/reverse_kl")


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return write_short_rows(tmp_path / "train.jsonl", 4 * STEPS)


@pytest.fixture
def old_sdk(tmp_path: Path) -> dict[str, str]:
    """An environment in which `import tinker` is the 0.25.0 that SkyRL asks for; all it needs is what 0.38 needs."""
    (site,) = SkyrlProcess.python.parents[1].glob("lib/python3*/site-packages")
    folder = tmp_path / "sdk"
    folder.mkdir()
    for name in ("tinker", "tinker-0.25.0.dist-info"):
        (folder / name).symlink_to(site / name)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def losses_of(run_dir: Path) -> list[list[float]]:
    return [[row[name] for name in SAME] for row in read_jsonl(run_dir / "metrics.jsonl") if SAME[0] in row]


def config_in(folder: Path, server: SkyrlProcess, rows: str, groups: int = 4, steps: int = STEPS) -> Path:
    folder.mkdir()
    return config_on(
        server,
        folder,
        name="run",
        data={"path": rows, "eval_path": rows, "max_eval_rows": 8 * groups},
        student={"learning_rate": 3e-3},
        teachers=[{"model": str(server.model), "scorer": {"name": "tinker", "base_url": server.url}}],
        router="single",
        sampling={"max_completion_tokens": 8},
        train={"prompt_groups_per_step": groups, "max_steps": steps, "save_every": 1},
    )


def test_a_run_learns(server: SkyrlProcess, tmp_path: Path) -> None:
    rows = write_short_rows(tmp_path / "more.jsonl", 128)
    config = config_in(tmp_path / "longer", server, rows, groups=8, steps=16)
    ended(start(config), config)
    found = read_json(tmp_path / "longer/runs/run/summary.json")["eval"]
    # On the local backend, over four seeds: 0.50 to 0.58
    assert found["after"]["reverse_kl"] < 0.8 * found["before"]["reverse_kl"]


def test_a_run_that_is_killed_and_resumed_ends_as_one_that_is_not(
    server: SkyrlProcess, tmp_path: Path, rows: str, old_sdk: dict[str, str]
) -> None:
    whole = config_in(tmp_path / "whole", server, rows)
    ended(start(whole), whole)
    expected = losses_of(tmp_path / "whole/runs/run")
    assert len(expected) == STEPS
    version = [sys.executable, "-c", "import tinker; print(tinker.__version__)"]
    assert subprocess.check_output(version, env=old_sdk, text=True).strip() == "0.25.0"
    for sdk, env in (("installed", {}), ("old", old_sdk)):
        config, run_dir = config_in(tmp_path / sdk, server, rows), tmp_path / sdk / "runs/run"
        kill_behind_checkpoint(start(config, env=env), run_dir)
        ended(start(config, "--resume", env=env), config)
        assert losses_of(run_dir) == [pytest.approx(step, rel=1e-4) for step in expected], sdk
        assert {entry["outcome"] for entry in read_jsonl(run_dir / "ledger.jsonl")} == {"trained"}
        assert (run_dir / "adapter/adapter_model.safetensors").exists()
