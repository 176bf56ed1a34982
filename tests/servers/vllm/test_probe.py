"""`distillkit check --probe` on a real vLLM, with and without its prefix cache; `-s` prints its figures."""

from pathlib import Path

import pytest

from servers.probing import probe_config, require_said, require_steady
from servers.vllm.vllm_process import VllmProcess

pytestmark = pytest.mark.servers


@pytest.fixture
def config(cached_or_not: VllmProcess, student_server: VllmProcess, tiny: Path, tmp_path: Path, rows: str) -> Path:
    sampler = {"name": "vllm", "base_url": student_server.url}
    return probe_config(tmp_path, tiny, sampler, cached_or_not.url, data=rows, tokens=400)


async def test_a_real_server_is_steady_and_samples_from_what_it_says(
    config: Path, request: pytest.FixtureRequest
) -> None:
    await require_steady(config, f"vLLM, {request.node.callspec.params['cached_or_not']}")


@pytest.mark.parametrize("cached_or_not", ["teacher_server"], indirect=True)
def test_the_command_says_so(config: Path) -> None:
    require_said(config)
