"""`distillkit check --probe` on a real server, which samples for a student and scores as its teacher."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import JsonValue

from distillkit.config.load import load_config
from distillkit.preflight.prepared_run import prepare_run
from distillkit.probe.figures import as_json
from distillkit.probe.without_run import probed
from servers.scoring import FLOAT32
from servers.server_process import TOP

ROWS = str(TOP / "examples/routed_mopd/train.jsonl")


def probe_config(
    folder: Path,
    model: Path,
    sampler: Mapping[str, JsonValue],
    teacher: str,
    *,
    served: str = "smol",
    data: str = ROWS,
    tokens: int = 128,
) -> Path:
    """A student that samples elsewhere, and a teacher of the same weights that reads more: an answered example.

    The teacher is at the address `teacher`, which serves it as `served`. Completions have up to so many `tokens`, and
    some must end by themselves.
    """
    scorer = {"name": "http", "base_url": teacher}
    student = {"name": "local", "model": str(model), "dtype": "float32", "lora_rank": 8, "sampler": dict(sampler)}
    values = {
        "log_path": str(folder / "runs/{name}"),
        "data": data,
        "student": student,
        "teachers": [{"model": served, "tokenizer_model": str(model), "scorer": scorer}],
        "router": "single",
        "sampling": {"max_completion_tokens": tokens},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


async def require_steady(config: Path, server: str) -> None:
    """The same numbers however it is asked again, and completions of the distribution that it reports."""
    resolved, registry = load_config([config], [])
    report = await probed(prepare_run(resolved, registry, print), print)
    print(f"\n{server}: {json.dumps(as_json(report.figures), indent=1)}")
    assert not report.refused
    (teacher,) = report.figures.teachers
    assert {how: apart for how, apart in teacher.asked_again.items() if apart.largest > FLOAT32} == {}
    assert report.figures.ended > 0


def require_said(config: Path) -> None:
    """The command says the same."""
    command = [sys.executable, "-m", "distillkit", "check", str(config), "--probe"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "gap to the student" in done.stdout
