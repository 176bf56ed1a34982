"""Real Tinker servers of SkyRL's, on a tiny model; `test_demo.py` starts one on the demo's model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny_models import write_model

from servers.server_process import running
from servers.skyrl.skyrl_process import SkyrlProcess


@pytest.fixture(autouse=True)
def _a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """SkyRL checks none; the SDK wants one that looks like Tinker's."""
    monkeypatch.setenv("TINKER_API_KEY", "tml-local")
    monkeypatch.setenv("TINKER_TELEMETRY", "0")


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers with a token a byte."""
    return Path(write_model(tmp_path_factory.mktemp("tiny"), family="qwen3", context=1024))


@pytest.fixture(scope="package")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyrlProcess]:
    """It answers N - 1 prompt logprobs, as SkyRL's JAX backend does."""
    server = SkyrlProcess(tiny, tmp_path_factory.mktemp("skyrl") / "skyrl.log")
    with running(server):
        yield server


@pytest.fixture(scope="package")
def server_of_n(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyrlProcess]:
    """It answers N prompt logprobs, the first None, as hosted Tinker does."""
    server = SkyrlProcess(tiny, tmp_path_factory.mktemp("skyrl-n") / "skyrl.log", prompt_logprobs="n")
    with running(server):
        yield server


@pytest.fixture(params=["server", "server_of_n"], ids=["n-1", "n"])
def either_server(request: pytest.FixtureRequest) -> SkyrlProcess:
    """A server of each alignment."""
    found: SkyrlProcess = request.getfixturevalue(request.param)
    return found
