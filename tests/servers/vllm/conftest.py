"""Real vLLM servers, which tests share: three of a tiny model, and one of the demo's model, where that adds something.

A server takes half a minute of a core to start, nearly all of it imports; each but the first two starts when a test
asks for it. Teachers' are without adapters, since vLLM 0.32 dies of prompt logprobs beside them. The one without a
prefix cache has no token interface either.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny_models import write_model

from servers.server_process import running
from servers.short_rows import write_short_rows
from servers.vllm.vllm_process import LORA, TOKENS, VllmProcess

GENERATION_CONFIG = {"top_k": 1, "repetition_penalty": 1.3}
"""Greedy, and less probable what was in the prompt: as strong as model files have it, or stronger."""
TEACHER = (TOKENS, "--enable-prefix-caching")


def greedy_copy(model: Path, directory: Path) -> Path:
    """The model in a directory that would change how it samples, where a request leaves out a field."""
    config = model / "generation_config.json"
    kept = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    for file in model.iterdir():
        if file != config:
            (directory / file.name).symlink_to(file)
    (directory / config.name).write_text(json.dumps({**kept, **GENERATION_CONFIG}), encoding="utf-8")
    return directory


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with a token a byte, whose head is its embedding; what `rows` ask of it is soon learnt.

    Heads of 32 numbers are the smallest that attention takes in vLLM 0.32 on a CPU.
    """
    return Path(write_model(tmp_path_factory.mktemp("tiny"), spread=0.2, context=1024, head_dim=32))


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """A data file of 256 rows, of which each teacher has its half."""
    return write_short_rows(tmp_path / "rows.jsonl", 256)


@pytest.fixture(scope="package")
def served_tiny(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return greedy_copy(tiny, tmp_path_factory.mktemp("served-tiny"))


@pytest.fixture(scope="package")
def served_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return greedy_copy(model, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="package")
def servers(served_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmProcess, VllmProcess]]:
    logs = tmp_path_factory.mktemp("vllm")
    pair = (
        VllmProcess(served_tiny, logs / "teacher.log", TEACHER),
        VllmProcess(served_tiny, logs / "student.log", (TOKENS, *LORA)),
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
def uncached_server(served_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    log = tmp_path_factory.mktemp("uncached") / "vllm.log"
    server = VllmProcess(served_tiny, log, ("--no-enable-prefix-caching",))
    with running(server):
        yield server


@pytest.fixture(scope="package")
def smol_server(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    """The demo's model as `teacher_server` serves the tiny one."""
    server = VllmProcess(served_model, tmp_path_factory.mktemp("vllm-smol") / "vllm.log", TEACHER)
    with running(server):
        yield server


@pytest.fixture(params=["teacher_server", "uncached_server"], ids=["prefix cache", "no prefix cache"])
def cached_or_not(request: pytest.FixtureRequest) -> VllmProcess:
    """A server that scores, with and without its prefix cache."""
    found: VllmProcess = request.getfixturevalue(request.param)
    return found
