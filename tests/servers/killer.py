"""A sink that kills the server of a run."""

import threading
from collections.abc import Callable
from typing import ClassVar

from conftest import read_jsonl
from pydantic import PrivateAttr

import distillkit
from distillkit import RunConfig, Sink
from distillkit.events import Event, StepFinished
from servers.scoring import FLOAT32
from servers.server_process import ServerProcess


class Killer(Sink):
    """Kills a server in the middle of the third step, `seconds` after the second, and starts it again."""

    name: ClassVar[str] = "killer"
    seconds: float = 1.0
    _server: ServerProcess | None = PrivateAttr(None)
    _thread: threading.Thread | None = PrivateAttr(None)

    @classmethod
    def of(cls, server: ServerProcess, seconds: float) -> "Killer":
        killer = cls(seconds=seconds)
        killer._server = server
        return killer

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.step == 2:
            self._thread = threading.Timer(self.seconds, self._kill)
            self._thread.start()

    def _kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.start()

    def join(self) -> None:
        """Wait until the server was started again. Fails if it never was killed."""
        assert self._thread is not None
        self._thread.join()


def require_lossless(server: ServerProcess, config: Callable[[Sink], RunConfig], seconds: float = 1.0) -> None:
    """A run of four steps, whose `server` is killed in the third and started again, costs nothing but time.

    It is killed so many `seconds` after the second step, while it samples for the third.
    """
    killer = Killer.of(server, seconds)
    result = distillkit.run(config(killer))
    killer.join()
    ledger = read_jsonl(result.run_dir / "ledger.jsonl")
    assert (result.steps, result.summary["failed_completions"]) == (4, 0)
    assert {entry["outcome"] for entry in ledger} == {"trained"}
    assert max(row.get("rollout/logprob_mismatch", 0.0) for row in result.metrics) < FLOAT32
    assert sum(row.get("concurrency/student/retries", 0.0) for row in result.metrics) > 0
