"""The demo with its real model, taught by a real vLLM server: too long for CI."""

from pathlib import Path

import pytest

import distillkit
from servers.demo_config import demo, http_teachers
from servers.server_process import TOP
from servers.vllm.vllm_process import VllmProcess

pytestmark = [pytest.mark.servers, pytest.mark.demo]


def test_the_demo_with_both_teachers_over_http_reaches_its_target(
    smol_server: VllmProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TOP)
    result = distillkit.run(demo(model, tmp_path, [], teachers=http_teachers(smol_server.url, model)))
    before, after = result.eval["before"], result.eval["after"]
    assert after["reverse_kl"] < 0.6 * before["reverse_kl"]
    assert after["routes"]["short"]["pattern_rate"] > before["routes"]["short"]["pattern_rate"] + 0.3
    assert "teacher_rate" in after["routes"]["short"]
    assert (result.summary["failed_completions"], result.steps) == (0, 15)
