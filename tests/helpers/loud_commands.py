"""Commands that run as loud as can be, in an environment of secrets, and where a secret shows in what they left."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import question

from helpers.secret_markers import SECRETS, environment, leaks_below, shown_in

HERE = Path(__file__).parent.parent
PLUGINS = str(HERE / "helpers" / "leaky_plugins.py")
DEAD = "127.0.0.1:9"
"""Where nobody listens."""
LOUD = {
    "WANDB_DEBUG": "true",
    "WANDB_CORE_DEBUG": "true",
    "HF_DEBUG": "1",
    "TRANSFORMERS_VERBOSITY": "debug",
    "TINKER_LOG": "debug",
    "FIREWORKS_LOG": "debug",
}
ALONE = {"WANDB_ERROR_REPORTING": "false", "TINKER_TELEMETRY": "0", "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}
PASSWORD, TEACHER_KEY, HF_TOKEN = SECRETS["proxy password"], SECRETS["TEACHER_LOGIN"], SECRETS["HF_TOKEN"]


@dataclass(frozen=True)
class Done:
    """What commands left."""

    codes: list[int]
    folder: Path
    printed: bytes

    def leaks(self, below: str = "runs") -> list[str]:
        """Where a secret shows, other than in the configs, where a test put it."""
        return [f"printed: {one}" for one in shown_in(self.printed)] + leaks_below(self.folder / below)


def distillkit(folder: Path, commands: Sequence[Sequence[str]], proxy: str = DEAD, **variables: str) -> Done:
    """Run commands in a process whose environment holds every secret; `-v` is added to each."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    path = os.pathsep.join([str(HERE), *filter(None, [kept.get("PYTHONPATH")])])
    own = {"HOME": str(folder / "runs"), "HF_HOME": str(folder / "runs/hf"), "PYTHONPATH": path}
    codes = folder / "codes.json"
    asked = {"codes": str(codes), "commands": [[*command, "-v"] for command in commands]}
    done = subprocess.run(
        [sys.executable, str(HERE / "helpers" / "run_commands.py")],
        input=json.dumps(asked | {"fireworks": "fireworks" in variables}).encode(),
        cwd=folder,
        env=kept | LOUD | ALONE | own | environment(proxy) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    assert codes.is_file(), done.stdout.decode(errors="replace")[-3000:]
    return Done(json.loads(codes.read_text()), folder, done.stdout)


def prepare(folder: Path) -> Path:
    """A working directory with data."""
    rows = [question(f"number {i}") for i in range(8)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "runs").mkdir()
    return folder


def write(folder: Path, name: str, **over: Any) -> str:
    """A config of the fakes; keywords are laid over it."""
    values: dict[str, Any] = {
        "name": name,
        "plugins": [PLUGINS],
        "data": "train.jsonl",
        "student": {"name": "fake", "learning_rate": 30.0},
        "teachers": [{"model": "m", "scorer": {"name": "fake", "likes": "abc"}}],
        "sampling": {"completions_per_prompt": 2, "max_completion_tokens": 8},
        "train": {"prompt_groups_per_step": 2, "save_every": 1},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values | over), encoding="utf-8")
    return f"{name}.yaml"
