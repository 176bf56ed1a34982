"""Starting a loopback command as a user does, and the config files of `docs/loopback.md`."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/loopback.md"
MARKED = re.compile(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
RUN_COMMANDS = Path(__file__).parents[1] / "helpers/run_commands.py"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the page's configs name."""
START_S = 120.0


@contextmanager
def served(module: str, *arguments: str) -> Iterator[list[str]]:
    """`python -m module arguments`, ended by Ctrl-C after the block; the lines that it printed when it served.

    The test fails if it prints anything else, or does not end well.
    """
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        lines = [first] if "Elsewhere" not in first else [first, process.stdout.readline(), process.stdout.readline()]
        assert first, process.communicate()[1]
        yield lines
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, ""), error
        assert "Traceback" not in error
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


def write_files(folder: Path, replaced: Mapping[str, str]) -> None:
    """The files of the page, with some texts replaced by others."""
    for name, content in MARKED.findall(PAGE.read_text(encoding="utf-8")):
        for old, new in replaced.items():
            content = content.replace(old, new)
        (folder / name).write_text(content, encoding="utf-8")


def require_loopback_alone(port: int) -> None:
    """Fail if anything but 127.0.0.1 listens at a port; says nothing where there is no /proc."""
    found: list[str] = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            _, local, _, state, *_ = line.split()
            address, _, listening = local.partition(":")
            if state == "0A" and int(listening, 16) == port:
                found.append(address)
    local = socket.inet_aton("127.0.0.1")
    assert found in ([], [f"{int.from_bytes(local, sys.byteorder):08X}"])


def require_refused_in_one_line(
    main: Callable[[list[str], Callable[[], None]], int], model: str, shown: pytest.CaptureFixture[str], folder: Path
) -> None:
    """A port that is taken, a `folder` without a model and a key that is not set are each refused in one line."""

    def twice() -> None:
        port = re.search(r"http://127\.0\.0\.1:(\d+)", shown.readouterr().out)
        assert port is not None
        assert main([model, "--port", port.group(1)], pytest.fail) == 2

    assert main([model, "--port", "0"], twice) == 0
    assert re.match(r"error: port \d+ cannot be used: .*; choose another one by --port$", shown.readouterr().err)
    assert main([str(folder), "--port", "0"], pytest.fail) == 2
    assert shown.readouterr().err.startswith(f"error: the model of '{folder}'")
    assert main([model, "--api-key-env", "NOT_SET"], pytest.fail) == 2
    assert "the environment variable NOT_SET is not set" in shown.readouterr().err


def distillkit(folder: Path, commands: list[list[str]], *, fireworks: bool = False, **environment: str) -> list[int]:
    """The exit codes of distillkit's commands in `folder`, run in one process that waits less between two polls."""
    codes = folder / "codes.json"
    asked = {"commands": commands, "fireworks": "yes" if fireworks else "", "codes": str(codes)}
    done = subprocess.run(
        [sys.executable, str(RUN_COMMANDS)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=240,
        check=False,
    )
    assert codes.exists(), done.stdout + done.stderr
    found: list[int] = json.loads(codes.read_text())
    assert set(found) == {0}, done.stdout + done.stderr
    return found
