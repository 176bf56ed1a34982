from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from loopback.openai.wire import Serve, write_adapter

import distillkit
from builtin.http.runs import teacher, trained
from distillkit import RunConfig
from distillkit.records import Weights
from distillkit_builtin.remote import circuit_breaker, connection, preflight_request, retries
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer

Make = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off for hundredths of a second."""
    monkeypatch.setattr(retries, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(retries, "LONGEST_BACKOFF", 0.05)
    monkeypatch.setattr(circuit_breaker, "FIRST_COOL_DOWN", 0.05)
    monkeypatch.setattr(circuit_breaker, "LONGEST_COOL_DOWN", 0.1)


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback has no TLS, and scored the CA bundle for every client takes longer than most tests."""
    for module in (preflight_request, connection):
        monkeypatch.setattr(module, "tls", lambda options: False)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Models this small are slower on two threads."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server of a CategoricalModel, or another one; it is stopped after the test."""
    running: list[LoopbackServer] = []

    def start(model: Any = None, **options: Any) -> LoopbackServer:
        running.append(LoopbackServer(model or CategoricalModel(), **options))
        running[-1].start()
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def real(tiny_model: str) -> Any:
    """The tiny Llama behind a server."""
    pytest.importorskip("torch")
    from distillkit_loopback.openai.network_model import NetworkModel

    return NetworkModel.load(tiny_model)


@pytest.fixture
def adapters(tmp_path: Path) -> Sequence[Weights]:
    """Three versions."""
    return [Weights(v, "peft", Path(write_adapter(tmp_path / f"v{v}", str(v).encode()))) for v in range(3)]


@pytest.fixture
def models(tmp_path: Path) -> Sequence[Weights]:
    """Three versions of all weights."""
    for version in range(3):
        (tmp_path / f"m{version}").mkdir()
        (tmp_path / f"m{version}" / "model.safetensors").write_text(str(version))
    return [Weights(version, "safetensors", tmp_path / f"m{version}") for version in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Of a cache of scores."""
    return str(tmp_path / "caches" / "scores.sqlite")


@pytest.fixture
def untroubled(serve: Serve, fake_config: Make) -> list[dict[str, Any]]:
    """What a run learns whose teacher behaves."""
    return trained(distillkit.run(fake_config(name="untroubled", teachers=[teacher(serve())])))
