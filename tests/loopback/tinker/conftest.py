"""The loopback Tinker service with a tiny model, of either kind, and the real SDK pointed at it."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tinker import ServiceClient

    from distillkit_loopback.tinker.service import TinkerService

MODEL = "org/tiny"
KEY = "tml-test"
Start = Callable[..., "TinkerService"]
Connect = Callable[["TinkerService"], "ServiceClient"]


@pytest.fixture(autouse=True)
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry, nothing from the user's environment, and short waits between retries."""
    pytest.importorskip("tinker")
    from tinker import _base_client

    for name in [name for name in os.environ if name.startswith("TINKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr(_base_client, "MAX_RETRY_DELAY", 0.01)


@pytest.fixture
def start(tiny_model: str) -> Iterator[Start]:
    """Services of the tiny model, closed after the test."""
    from distillkit_loopback.tinker.service import TinkerService

    started: list[TinkerService] = []

    def make(kind: str = "hosted", **options: Any) -> TinkerService:
        started.append(TinkerService({MODEL: tiny_model}, kind=kind, **options))  # type: ignore[arg-type]
        return started[-1]

    yield make
    for service in started:
        service.close()


@pytest.fixture(params=["hosted", "skyrl"])
def service(request: pytest.FixtureRequest, start: Start) -> "TinkerService":
    """A service of each kind."""
    return start(request.param)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Clients of the SDK, whose heartbeats end with the test."""
    from tinker import ServiceClient

    clients: list[ServiceClient] = []

    def make(service: "TinkerService") -> ServiceClient:
        clients.append(ServiceClient(base_url=service.base_url, api_key=KEY))
        return clients[-1]

    yield make
    for client in clients:
        if client._session_holder is not None:
            client._session_holder.close()
