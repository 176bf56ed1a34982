"""`python -m distillkit_loopback.tinker`, by which the backend is tried without an account."""

import json
import re
from pathlib import Path

import httpx
import pytest

from distillkit_loopback.tinker.__main__ import main
from loopback.commands import (
    MODEL,
    distillkit,
    require_loopback_alone,
    require_refused_in_one_line,
    served,
    write_files,
)


def test_it_serves_the_model_by_its_name(
    tiny_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "tml-abc")

    def look() -> None:
        shown = capsys.readouterr().out
        assert shown.startswith("org/tiny is served by the Tinker protocol")
        assert shown.endswith('export TINKER_API_KEY="$TEACHER_KEY"\n')
        url = re.search(r"TINKER_BASE_URL=(\S+)", shown)
        assert url is not None
        address = f"{url.group(1)}/api/v1/get_server_capabilities"
        assert httpx.get(address, headers={"x-api-key": "tml-no"}).status_code == 401
        answer = httpx.get(address, headers={"x-api-key": "tml-abc"})
        assert answer.json() == {"supported_models": [{"model_name": "org/tiny"}]}

    options = ["--name", "org/tiny", "--kind", "skyrl", "--port", "0", "--api-key-env", "TEACHER_KEY"]
    assert main([tiny_model, *options], look) == 0


@pytest.mark.slow
def test_a_student_and_a_teacher_run_on_it_as_the_docs_say(tiny_model: str, tmp_path: Path) -> None:
    pytest.importorskip("tinker")
    write_files(tmp_path, {MODEL: tiny_model})
    with served("distillkit_loopback.tinker", tiny_model, "--port", "0") as (_, url, key):
        address = re.fullmatch(r"export TINKER_BASE_URL=(http://127\.0\.0\.1:(\d+))\n", url)
        assert address is not None
        assert key == "export TINKER_API_KEY=tml-loopback\n"
        require_loopback_alone(int(address.group(2)))
        environment = {"TINKER_BASE_URL": address.group(1), "TINKER_API_KEY": "tml-loopback"}
        commands = [["check", "tinker.yaml"], ["run", "tinker.yaml"]]
        assert distillkit(tmp_path, commands, **environment) == [0, 0]
    summary = json.loads((tmp_path / "runs/tinker/summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("completed", 2)


def test_what_cannot_be_served_is_one_line(tiny_model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    require_refused_in_one_line(main, tiny_model, capsys, tmp_path)
