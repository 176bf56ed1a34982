"""Runs on a real Tinker server as a user starts them: a config, `distillkit run`, a kill, `--resume`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distillkit.run_directory.checkpoint import checkpoints
from servers.server_process import TOP
from servers.skyrl.skyrl_process import SkyrlProcess

WAIT_SECONDS = 1800.0
"""For a checkpoint. What a step takes depends on what else the machine does."""


def config_on(server: SkyrlProcess, folder: Path, **over: Any) -> Path:
    """The demo's config, with its student and its two teachers on `server`; sections given are laid over it."""
    values = yaml.safe_load((TOP / "examples/routed_mopd/config.yaml").read_text(encoding="utf-8"))
    model, scorer = str(server.model), {"name": "tinker", "base_url": server.url}
    rate = {"lora_rank": 8, "learning_rate": 6e-4}  # half the demo's, since Tinker's lora_alpha is twice its
    values["log_path"] = str(folder / "runs/{name}")
    values["student"] = {"name": "tinker", "model": model, "base_url": server.url, **rate}
    values["teachers"] = [{**teacher, "model": model, "scorer": scorer} for teacher in values["teachers"]]
    values |= {"evaluators": ["reverse_kl"], "sinks": ["console"], "probe": {"at_start": "never"}}
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        values[key] = {**values[key], **value} if both else value
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def start(config: Path, *more: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """`distillkit run` in a process of its own; what it prints is in `run.txt` beside the config."""
    with (config.parent / "run.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "distillkit", "run", str(config), *more],
            cwd=TOP,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )


def kill_behind_checkpoint(run: "subprocess.Popen[bytes]", run_dir: Path) -> None:
    """End a run as the out-of-memory killer would, as soon as it has a checkpoint and goes on to the next step."""
    until = time.monotonic() + WAIT_SECONDS
    while not checkpoints(run_dir) and run.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    assert run.poll() is None, "it ended before it could be killed"
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert checkpoints(run_dir)


def ended(run: "subprocess.Popen[bytes]", config: Path) -> None:
    """Wait for its end, which must be a good one."""
    code = run.wait()
    assert code == 0, (config.parent / "run.txt").read_text(encoding="utf-8", errors="replace")[-4000:]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
