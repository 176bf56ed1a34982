"""The loopback Tinker service with a tiny model, of either kind, and an environment without the user's own settings."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from builtin.tinker.runs import STUDENT
from builtin.tinker.scorers import fake  # noqa: F401

if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService

KEY = "tml-loopback-0123456789"
Start = Callable[..., "TinkerService"]


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, no telemetry, and short waits between retries."""
    pytest.importorskip("tinker")
    from tinker import _base_client

    for name in [name for name in os.environ if name.startswith("TINKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr(_base_client, "MAX_RETRY_DELAY", 0.01)


@pytest.fixture
def start(sdk: None, tiny_model: str) -> Iterator[Start]:
    """Services of the tiny model, closed after the test."""
    from distillkit_loopback.tinker.service import TinkerService

    started: list[TinkerService] = []

    def make(kind: str = "hosted", **options: Any) -> TinkerService:
        started.append(TinkerService({STUDENT: tiny_model}, kind=kind, **options))  # type: ignore[arg-type]
        return started[-1]

    yield make
    for service in started:
        service.close()


@pytest.fixture(params=["hosted", "skyrl"])
def service(request: pytest.FixtureRequest, start: Start) -> "TinkerService":
    """A service of each kind."""
    return start(request.param)
