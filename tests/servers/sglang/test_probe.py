"""`distillkit check --probe` on a real SGLang, which scores and samples; `-s` prints its figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillkit.config.load import load_config
from distillkit.preflight.prepared_run import prepare_run
from distillkit.probe.figures import as_json
from distillkit.probe.report import ProbeReport
from distillkit.probe.without_run import probed
from servers.scoring import FLOAT32
from servers.server_process import TOP
from servers.sglang.sglang_process import SGLangProcess

pytestmark = pytest.mark.servers


@pytest.fixture
def config(server: SGLangProcess, model: Path, tmp_path: Path) -> Path:
    """A student that samples from SGLang, and a teacher of the same weights that reads an answered example first."""
    scorer = {"name": "http", "base_url": server.root}
    sampler = {"name": "sglang", "base_url": server.root}
    values = {
        "log_path": str(tmp_path / "runs/{name}"),
        "data": str(TOP / "examples/routed_mopd/train.jsonl"),
        "student": {"name": "local", "model": str(model), "dtype": "float32", "lora_rank": 8, "sampler": sampler},
        "teachers": [{"model": "smol", "tokenizer_model": str(model), "scorer": scorer}],
        "router": "single",
        "sampling": {"max_completion_tokens": 128},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


async def test_a_real_server_is_steady_and_samples_from_what_it_says(config: Path) -> None:
    report = await _report(config)
    print(f"\nSGLang: {json.dumps(as_json(report.figures), indent=1)}")
    assert not report.refused
    (teacher,) = report.figures.teachers
    assert {how: apart for how, apart in teacher.asked_again.items() if apart.largest > FLOAT32} == {}
    assert report.figures.ended > 0


async def _report(config: Path) -> ProbeReport:
    resolved, registry = load_config([config], [])
    return await probed(prepare_run(resolved, registry, print), print)


def test_the_command_says_so(config: Path) -> None:
    command = [sys.executable, "-m", "distillkit", "check", str(config), "--probe"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "gap to the student" in done.stdout
