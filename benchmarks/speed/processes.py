"""One side in a process of its own, with a limit of time: what it measured, or why not; and what the device held."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.device_memory import HeldMemory, reader

ROOT = Path(__file__).parents[2]
LEAST = 45.0
"""Seconds that must be left for a side to be started."""
Measured = dict[str, Any]
"""As JSON: what a side's `measure` returned, or `error`."""


@dataclass
class Processes:
    """Runs sides one after another, within limits."""

    folder: Path
    """Where models, results and outputs are written."""
    limit_s: float
    """Of one side."""
    budget_s: float
    """Of all sides together."""
    begin: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Read what the device holds before anything runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._read = reader()
        self._idle = self._read() if self._read else 0.0

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget_s - (time.monotonic() - self.begin)

    def write_inputs(self, shape: str, steps: int, ranks: int = 1) -> str | None:
        """Write a shape's models and prompts, unless its models are there; why not.

        In a process of its own: what a device holds for it is none of a side's memory.
        """
        folder = self.folder / shape
        folder.mkdir(parents=True, exist_ok=True)
        if ranks == 1 and (folder / "student").exists():
            return None
        code = ["-m", "benchmarks.speed.child", shape, "ours", "{}", "--steps", str(steps), "--ranks", str(ranks)]
        log = self.folder / f"{shape}, inputs.log"
        return _run([sys.executable, *code, "--folder", str(folder)], min(self.limit_s, self.left), {}, log)

    def measure(self, what: str, command: Sequence[str], environment: Mapping[str, str]) -> Measured:
        """Run the command, which writes `--result`; the seconds of CPU time and of waiting besides."""
        if self.left < LEAST:
            return {"error": "left out: the call's time was over"}
        result, log = self.folder / "result.json", self.folder / f"{what.replace('/', '-')}.log"
        result.unlink(missing_ok=True)
        begin, cpu = time.monotonic(), _cpu_seconds()
        with HeldMemory(self._read, self._idle) as held:
            error = _run([*command, "--result", str(result)], min(self.limit_s, self.left), environment, log)
        for work in self.folder.glob("*/work"):
            shutil.rmtree(work, ignore_errors=True)
        measured = {"error": error or "no result"} if error or not result.exists() else json.loads(result.read_text())
        spent = {"wall_s": round(time.monotonic() - begin, 1), "cpu_s": round(_cpu_seconds() - cpu, 1)}
        found = {**measured, "held_gib": held.gib, **spent}
        print(f"{what}: {json.dumps(found)}", file=sys.stderr, flush=True)
        return found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: Sequence[str], limit: float, environment: Mapping[str, str], log: Path) -> str | None:
    """The last error that it printed, if it failed; all that it printed is in `log`."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Devices have the numbers by which NVML knows them, not the order of their speed.
            env={**environment, **os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONPATH": paths},
            start_new_session=True,  # what it started itself ends with it
        )
        try:
            code: int | None = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        _end(process)
    if code == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(f"{log}:", *lines[-25:], sep="\n  ", file=sys.stderr, flush=True)
    if code is None:
        return f"over {limit:.0f} s"
    errors = [line.strip() for line in lines if "Error" in line]
    causes = [line for line in errors if "root cause" not in line]  # vLLM's processes say that it stands above
    return (causes or errors or [f"exit code {code}"])[-1]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Also of processes that it left behind."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
