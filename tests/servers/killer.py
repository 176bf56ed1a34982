"""A sink that kills the server of a run."""

import threading
from typing import ClassVar

from pydantic import PrivateAttr

from distillkit import Sink
from distillkit.events import Event, StepFinished
from servers.server_process import ServerProcess


class Killer(Sink):
    """Kills a server in the middle of the third step, and starts it again."""

    name: ClassVar[str] = "killer"
    _server: ServerProcess | None = PrivateAttr(None)
    _thread: threading.Thread | None = PrivateAttr(None)

    @classmethod
    def of(cls, server: ServerProcess) -> "Killer":
        killer = cls()
        killer._server = server
        return killer

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.step == 2:
            self._thread = threading.Timer(1.0, self._kill)
            self._thread.start()

    def _kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.start()

    def join(self) -> None:
        """Wait until the server was started again. Fails if it never was killed."""
        assert self._thread is not None
        self._thread.join()
