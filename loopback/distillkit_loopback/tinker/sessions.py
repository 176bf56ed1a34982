"""Sessions: what a client opens, keeps alive by heartbeats, and finishes. What is in one ends with it."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from pydantic import JsonValue

from distillkit_loopback.tinker.behavior import Behavior
from distillkit_loopback.tinker.routing import API, Call, Route, read
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import Refused


class NewSession(Body):
    """The body of a request to open a session."""

    tags: tuple[str, ...]
    user_metadata: dict[str, JsonValue] | None = None
    sdk_version: str
    project_id: str | None = None


class Heartbeat(Body):
    """The body of a sign of life."""

    session_id: str


class Finish(Body):
    """The body of a request to end a session."""

    reason: dict[str, JsonValue]
    detail: str | None = None


@dataclass(slots=True)
class Session:
    """One session of a client."""

    session_id: str
    opened: NewSession
    heard: float = field(default_factory=time.monotonic)
    """When there was a sign of life."""
    ended: str | None = None
    """`success`, `errored`, `interrupted`, or `silent`: no heartbeats came; None: it is open."""


class Sessions:
    """All sessions of the service."""

    def __init__(self, behavior: Behavior, timeout: float, ended: Callable[[str], None]) -> None:
        """A session ends after `timeout` seconds of silence; `ended(session_id)` is called when one does."""
        self._behavior, self._timeout, self._ended = behavior, timeout, ended
        self._lock = threading.RLock()
        self._sessions: dict[str, Session] = {}

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        yield Route.to("POST", API + "create_session", self._create)
        yield Route.to("POST", API + "session_heartbeat", self._heartbeat)
        if self._behavior.finishes_sessions:
            yield Route.to("POST", API + "sessions/{session}/finish", self._finish)
            yield Route.to("GET", API + "sessions", self._list)

    def open(self) -> dict[str, Session]:
        """The sessions that go on, by id."""
        with self._lock:
            for session in self._sessions.values():
                if session.ended is None and time.monotonic() - session.heard > self._timeout:
                    self._end(session, "silent")
            return {name: session for name, session in self._sessions.items() if session.ended is None}

    def finished(self) -> Mapping[str, str]:
        """How sessions ended, by id."""
        self.open()
        with self._lock:
            return {name: each.ended for name, each in self._sessions.items() if each.ended is not None}

    def require(self, session_id: str) -> Session:
        """A session that goes on. Raises Refused: 404 for an unknown one, 400 for one that has ended."""
        found = self.open().get(session_id)
        if found is None:
            known = session_id in self._sessions
            raise Refused(400, f"Session {session_id} has ended") if known else Refused(404, "Session not found")
        return found

    def forget(self) -> None:
        """The service has died: no session is known any more."""
        with self._lock:
            self._sessions.clear()

    def _create(self, call: Call) -> Response:
        session = Session(f"session_{uuid4().hex[:8]}", read(call, NewSession))
        with self._lock:
            self._sessions[session.session_id] = session
        return Response({"type": "create_session", "session_id": session.session_id})

    def _heartbeat(self, call: Call) -> Response:
        session_id = read(call, Heartbeat).session_id
        session = self.open().get(session_id)
        if session is None:
            raise Refused(410 if session_id in self._sessions else 404, f"Session {session_id} is not open")
        session.heard = time.monotonic()
        return Response({"type": "session_heartbeat"})

    def _finish(self, call: Call) -> Response:
        reason = read(call, Finish).reason
        self._end(self.require(call.names["session"]), str(reason.get("type")))
        return Response(None, 204)

    def _list(self, call: Call) -> Response:
        with self._lock:
            return Response({"sessions": list(self._sessions)})

    def _end(self, session: Session, how: str) -> None:
        session.ended = how
        self._ended(session.session_id)
