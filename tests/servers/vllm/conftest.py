"""Real vLLM servers: the teachers' is without adapters, since vLLM 0.32 dies of prompt logprobs beside them.

Each takes a minute to start, so all tests share them; the one without a prefix cache starts when it is asked for; it
has no token interface.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.server_process import running
from servers.vllm.vllm_process import LORA, TOKENS, VllmProcess

GENERATION_CONFIG = {"top_k": 1, "repetition_penalty": 1.3}
"""Greedy, and less probable what was in the prompt: as strong as model files have it, or stronger."""


@pytest.fixture(scope="package")
def served_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in a directory that would change how it samples, where a request leaves out a field."""
    directory = tmp_path_factory.mktemp("served")
    config = model / "generation_config.json"
    kept = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    for file in model.iterdir():
        if file != config:
            (directory / file.name).symlink_to(file)
    (directory / config.name).write_text(json.dumps({**kept, **GENERATION_CONFIG}), encoding="utf-8")
    return directory


@pytest.fixture(scope="package")
def servers(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmProcess, VllmProcess]]:
    logs = tmp_path_factory.mktemp("vllm")
    pair = (
        VllmProcess(served_model, logs / "teacher.log", (TOKENS, "--enable-prefix-caching")),
        VllmProcess(served_model, logs / "student.log", (TOKENS, *LORA)),
    )
    with running(*pair):
        yield pair


@pytest.fixture
def teacher_server(servers: tuple[VllmProcess, VllmProcess]) -> VllmProcess:
    return servers[0]


@pytest.fixture
def student_server(servers: tuple[VllmProcess, VllmProcess]) -> VllmProcess:
    return servers[1]


@pytest.fixture(scope="package")
def uncached_server(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    log = tmp_path_factory.mktemp("uncached") / "vllm.log"
    server = VllmProcess(served_model, log, ("--no-enable-prefix-caching",))
    with running(server):
        yield server


@pytest.fixture(params=["teacher_server", "uncached_server"], ids=["prefix cache", "no prefix cache"])
def cached_or_not(request: pytest.FixtureRequest) -> VllmProcess:
    """A server that scores, with and without its prefix cache."""
    found: VllmProcess = request.getfixturevalue(request.param)
    return found
