"""The loopback Tinker service with a tiny model, of either kind, and the real SDK pointed at it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from loopback.tinker.services import KINDS, Start, set_up_sdk, started

if TYPE_CHECKING:
    from tinker import ServiceClient

    from distillkit_loopback.tinker.service import TinkerService

MODEL = "org/tiny"
KEY = "tml-test"
Connect = Callable[["TinkerService"], "ServiceClient"]


@pytest.fixture(autouse=True)
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry, nothing from the user's environment, and short waits between retries."""
    set_up_sdk(monkeypatch)


@pytest.fixture
def start(tiny_model: str) -> Iterator[Start]:
    """Services of the tiny model, closed after the test."""
    with started({MODEL: tiny_model}) as start:
        yield start


@pytest.fixture(params=KINDS)
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
