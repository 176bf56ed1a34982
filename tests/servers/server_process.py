"""A real server in a process of its own, on loopback, to be started, killed and started again."""

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

TOP = Path(__file__).parents[2]
START_SECONDS = 400.0


def python_of(server: str) -> Path:
    """The interpreter of the environment that the Makefile sets up, or the one of `DISTILLKIT_<SERVER>_PYTHON`."""
    return Path(os.environ.get(f"DISTILLKIT_{server.upper()}_PYTHON", TOP / f".venv-{server}/bin/python"))


@dataclass
class ServerProcess(ABC):
    """`model` served on a free port; what it prints goes to the end of `log`."""

    model: Path
    log: Path
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=lambda: free_port())
    process: "subprocess.Popen[bytes] | None" = None

    python: ClassVar[Path]
    environment: ClassVar[Mapping[str, str]] = {}
    health: ClassVar[str] = "/health"
    """What answers 200 once it serves."""

    @abstractmethod
    def command(self) -> list[str | Path]:
        """The command line, without `arguments`."""

    @property
    def root(self) -> str:
        """The address without any path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and return at once."""
        if not self.python.exists():
            pytest.fail(f"{self.python} is not there; `make test-servers` sets it up", pytrace=False)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, self.command()), *self.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers. Raises RuntimeError with the end of its log if it does not."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process is not None and self.process.poll() is None:
            try:
                if httpx.get(f"{self.root}{self.health}", timeout=5).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        """End it and its workers as the out-of-memory killer would; it may have died before."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def running(*servers: ServerProcess) -> Iterator[None]:
    """All of them at once, from when each answers until the end of the block."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield
    finally:
        for server in servers:
            server.kill()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
