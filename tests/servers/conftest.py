"""Two real vLLM servers: the teachers' is without adapters, since vLLM 0.32 dies of prompt logprobs beside them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from distillkit_builtin.local.demo_model import ensure_demo_model
from servers.vllm_process import LORA, PYTHON, VllmProcess


@pytest.fixture(scope="session")
def model() -> Path:
    return ensure_demo_model(lambda message: None)


@pytest.fixture(scope="session")
def servers(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmProcess, VllmProcess]]:
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} is not there; `make test-servers` sets it up", pytrace=False)
    logs = tmp_path_factory.mktemp("vllm")
    pair = (
        VllmProcess(model, logs / "teacher.log", ("--enable-scale-out",)),
        VllmProcess(model, logs / "student.log", LORA),
    )
    try:
        for server in pair:
            server.start()
        for server in pair:
            server.wait()
        yield pair
    finally:
        for server in pair:
            server.kill()


@pytest.fixture
def teacher_server(servers: tuple[VllmProcess, VllmProcess]) -> VllmProcess:
    return servers[0]


@pytest.fixture
def student_server(servers: tuple[VllmProcess, VllmProcess]) -> VllmProcess:
    return servers[1]
