"""The loopback Tinker service with a tiny model, of either kind, and an environment without the user's own settings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from loopback.tinker.services import KINDS, Start, set_up_sdk, started

from builtin.tinker.fake_sdk import FakeServer
from builtin.tinker.runs import STUDENT
from builtin.tinker.scorers import MODEL, ROOT, Fake
from distillkit.frozen import FrozenDict
from distillkit_builtin.tinker import live_teacher
from distillkit_builtin.tinker import service as tinker_service
from distillkit_builtin.tinker.server_facts import ServerFacts

if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService

KEY = "tml-loopback-0123456789"


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, no telemetry, and short waits between retries."""
    set_up_sdk(monkeypatch)
    monkeypatch.setenv("TINKER_API_KEY", KEY)


@pytest.fixture
def start(sdk: None, tiny_model: str) -> Iterator[Start]:
    """Services of the tiny model, closed after the test."""
    with started({STUDENT: tiny_model}) as start:
        yield start


@pytest.fixture(params=KINDS)
def service(request: pytest.FixtureRequest, start: Start) -> "TinkerService":
    """A service of each kind."""
    return start(request.param)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Puts a server in the place of the SDK, and of what is asked before it is used."""
    monkeypatch.setenv("TINKER_API_KEY", "tml-0123456789")

    def make(
        lengths: dict[str, int | None] | None = None,
        base: str | None = MODEL,
        reads: frozenset[str] | None = None,
        **behaviour: Any,
    ) -> FakeServer:
        server = FakeServer(**behaviour)
        schemas = None if reads is None else FrozenDict({"SampleRequest": reads})
        facts = ServerFacts(ROOT, FrozenDict(lengths or {MODEL: None}), schemas=schemas)
        monkeypatch.setattr(tinker_service, "ask_server", lambda root, key: facts)
        monkeypatch.setattr(tinker_service, "base_model_of", lambda root, key, run_id: base)
        monkeypatch.setattr(tinker_service, "load_sdk", server.sdk)
        monkeypatch.setattr(live_teacher, "load_sdk", server.sdk)
        return server

    return make
