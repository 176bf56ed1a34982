"""`distillkit check --probe` on a real SGLang, which scores and samples; `-s` prints its figures."""

from pathlib import Path

import pytest

from servers.probing import probe_config, require_said, require_steady
from servers.sglang.sglang_process import SGLangProcess

pytestmark = pytest.mark.servers


@pytest.fixture
def config(server: SGLangProcess, tiny: Path, tmp_path: Path, rows: str) -> Path:
    sampler = {"name": "sglang", "base_url": server.root}
    return probe_config(tmp_path, tiny, sampler, server.root, served=server.name, data=rows, tokens=400)


async def test_a_real_server_is_steady_and_samples_from_what_it_says(config: Path) -> None:
    await require_steady(config, "SGLang")


def test_the_command_says_so(config: Path) -> None:
    require_said(config)
