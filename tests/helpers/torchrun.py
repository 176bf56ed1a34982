"""Runs in several processes on this machine, started by torchrun as a user starts them."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

FORCED = "forcefully exiting"
"""What torchrun says once it has waited 30 s for a process that takes no notice."""


def torchrun(ranks: int, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "distillkit", "run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def free_port() -> int:
    """A port that nobody listens at, and that no connection or server of other tests is given before it is used.

    Those get theirs from the system, of a range of its own; this one is below that, and another for each process.
    """
    for port in random.sample(range(15_000, 30_000), 100):
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("none of a hundred ports is free")


def agent(host: int, port: int, *program: str, **options: Any) -> "subprocess.Popen[str]":
    """One of two agents of torchrun with a process each, as on two hosts; a session of its own, to be killed whole."""
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    words += ["--node-rank", str(host), "--master-addr", "127.0.0.1", "--master-port", str(port)]
    words += program
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, start_new_session=True, **pipes, **options)


def finished(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=180)
    return process.returncode, output


def until(there: Callable[[], bool]) -> None:
    for _ in range(1800):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("nothing came within three minutes")


def children_of(process: "subprocess.Popen[str]") -> list[str]:
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def kill_host(process: "subprocess.Popen[str]") -> None:
    """As if its power was cut: the agent and its processes, which are in sessions of their own."""
    if process.poll() is None:
        children = children_of(process)
        for pid in (process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)


def kill(process: "subprocess.Popen[str]", rank: int) -> None:
    by_rank = {}
    for child in children_of(process):
        environment = Path(f"/proc/{child}/environ").read_text().split("\0")
        by_rank.update({line: int(child) for line in environment if line.startswith("RANK=")})
    os.kill(by_rank[f"RANK={rank}"], signal.SIGKILL)
