"""The demo on a real Tinker server with the demo's model: its gap shrinks, through a kill and a resume."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import read_jsonl

from servers.server_process import running
from servers.skyrl.skyrl_process import SkyrlProcess
from servers.skyrl.tinker_runs import config_on, ended, kill_behind_checkpoint, read_json, start

pytestmark = [pytest.mark.servers, pytest.mark.demo]
SHORT = {
    "data": {"max_eval_rows": 16},
    "sampling": {"max_completion_tokens": 32},
    "train": {"prompt_groups_per_step": 8, "max_steps": 4, "save_every": 1},
}


@pytest.fixture(scope="module")
def smol_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyrlProcess]:
    server = SkyrlProcess(model, tmp_path_factory.mktemp("skyrl-smol") / "skyrl.log", lengths=(96, 192))
    with running(server):
        yield server


def test_the_gap_shrinks_through_a_kill_and_a_resume(smol_server: SkyrlProcess, tmp_path: Path) -> None:
    config, run_dir = config_on(smol_server, tmp_path, **SHORT), tmp_path / "runs/routed-demo"
    kill_behind_checkpoint(start(config), run_dir)
    ended(start(config, "--resume"), config)
    summary = read_json(run_dir / "summary.json")
    before, after = summary["eval"]["before"], summary["eval"]["after"]
    assert after["reverse_kl"] < before["reverse_kl"]  # measured on 16 rows: by 0.173, with a standard error of 0.056
    steps = [row["step"] for row in read_jsonl(run_dir / "metrics.jsonl") if "train/loss" in row]
    assert steps == [1, 2, 3, 4]
    assert {entry["outcome"] for entry in read_jsonl(run_dir / "ledger.jsonl")} == {"trained"}
    assert (run_dir / "adapter/adapter_model.safetensors").exists()
