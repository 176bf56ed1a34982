"""Runs in several processes on this machine, started by torchrun as a user starts them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORCED = "forcefully exiting"
"""What torchrun says once it has waited 30 s for a process that takes no notice."""


def torchrun(ranks: int, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "distillkit", "run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def finished(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=180)
    return process.returncode, output


def until(there: Callable[[], bool]) -> None:
    for _ in range(1800):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("nothing came within three minutes")


def kill(process: "subprocess.Popen[str]", rank: int) -> None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    by_rank = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_text().split("\0")
        by_rank.update({line: int(child) for line in environment if line.startswith("RANK=")})
    os.kill(by_rank[f"RANK={rank}"], signal.SIGKILL)
