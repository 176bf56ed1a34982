"""A sink that kills the server of a run."""

import threading
from collections.abc import Callable
from typing import ClassVar

from conftest import read_jsonl
from pydantic import PrivateAttr

import distillkit
from distillkit import RunConfig, Sink
from distillkit.events import Event, PhaseProgress, StepFinished
from servers.scoring import FLOAT32
from servers.server_process import ServerProcess


class Killer(Sink):
    """Kills a server in the middle of the third step, and starts it again.

    That is when the first of the step's completions has ended, however fast the machine is; where the others have ended
    with it, the next step's weights find no server.
    """

    name: ClassVar[str] = "killer"
    _server: ServerProcess | None = PrivateAttr(None)
    _thread: threading.Thread | None = PrivateAttr(None)
    _steps: int = PrivateAttr(0)

    @classmethod
    def of(cls, server: ServerProcess) -> "Killer":
        killer = cls()
        killer._server = server
        return killer

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            self._steps = event.step
        ended = isinstance(event, PhaseProgress) and event.phase == "sample" and event.done > 0
        if ended and self._steps == 2 and self._thread is None:
            self._thread = threading.Thread(target=self._kill)
            self._thread.start()

    def _kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.start()

    def join(self) -> None:
        """Wait until the server was started again. Fails if it never was killed."""
        assert self._thread is not None
        self._thread.join()


def require_lossless(server: ServerProcess, config: Callable[[Sink], RunConfig]) -> None:
    """A run of four steps, whose `server` is killed while it samples for the third, and started again, costs only time.

    Its completions must be long, and of many lengths.
    """
    killer = Killer.of(server)
    result = distillkit.run(config(killer))
    killer.join()
    ledger = read_jsonl(result.run_dir / "ledger.jsonl")
    assert (result.steps, result.summary["failed_completions"]) == (4, 0)
    assert {entry["outcome"] for entry in ledger} == {"trained"}
    assert max(row.get("rollout/logprob_mismatch", 0.0) for row in result.metrics) < FLOAT32
    assert sum(row.get("concurrency/student/retries", 0.0) for row in result.metrics) > 0
