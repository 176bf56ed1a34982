"""Loopback Tinker services of tiny models, and the settings of the SDK: what fixtures of several folders make."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService

Start = Callable[..., "TinkerService"]
KINDS = ("hosted", "skyrl")


def set_up_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry, nothing from the user's environment, and short waits between retries."""
    pytest.importorskip("tinker")
    from tinker import _base_client

    for name in [name for name in os.environ if name.startswith("TINKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr(_base_client, "MAX_RETRY_DELAY", 0.01)


@contextmanager
def started(models: Mapping[str, str]) -> Iterator[Start]:
    """What starts services of models, name to directory; they are closed behind the block."""
    from distillkit_loopback.tinker.service import TinkerService

    services: list[TinkerService] = []

    def start(kind: str = "hosted", **options: Any) -> TinkerService:
        services.append(TinkerService(models, kind=kind, **options))  # type: ignore[arg-type]
        return services[-1]

    yield start
    for service in services:
        service.close()
