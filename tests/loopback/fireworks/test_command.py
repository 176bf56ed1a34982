"""`python -m distillkit_loopback.fireworks`, by which the recipe is tried without an account."""

import json
import re
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fireworks.training.sdk")

from distillkit_loopback.fireworks.__main__ import main
from loopback.commands import (
    MODEL,
    distillkit,
    require_loopback_alone,
    require_refused_in_one_line,
    served,
    write_files,
)


@pytest.mark.slow
def test_the_recipe_runs_on_it_as_the_docs_say(tiny_model: str, tmp_path: Path) -> None:
    write_files(tmp_path, {MODEL: tiny_model})
    with served("distillkit_loopback.fireworks", tiny_model, "--port", "0") as (line, *exports):
        assert line.startswith(f"{tiny_model} is served under every model's name")
        environment = dict(each.removeprefix("export ").strip().split("=", 1) for each in exports)
        assert environment.keys() == {"FIREWORKS_BASE_URL", "FIREWORKS_API_KEY"}
        address = re.fullmatch(r"http://127\.0\.0\.1:(\d+)", environment["FIREWORKS_BASE_URL"])
        assert address is not None
        require_loopback_alone(int(address.group(1)))
        commands = [["check", "recipe.yaml"], ["run", "recipe.yaml"]]
        assert distillkit(tmp_path, commands, fireworks=True, **environment) == [0, 0]
    summary = json.loads((tmp_path / "runs/recipe/summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("completed", 2)


def test_every_name_is_the_model_and_a_key_can_be_asked_for(
    tiny_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "abc")

    def look() -> None:
        shown = capsys.readouterr().out
        assert shown.endswith('export FIREWORKS_API_KEY="$TEACHER_KEY"\n')
        url = re.search(r"FIREWORKS_BASE_URL=(\S+)", shown)
        assert url is not None
        body = {"model": "accounts/any/models/at-all", "prompt": [1, 70, 80], "max_tokens": 2}
        for key, status in (("abc", 200), ("wrong", 401)):
            sent = httpx.post(f"{url.group(1)}/inference/v1/completions", json=body, headers={"x-api-key": key})
            assert sent.status_code == status

    assert main([tiny_model, "--port", "0", "--api-key-env", "TEACHER_KEY"], look) == 0


def test_what_cannot_be_served_is_one_line(tiny_model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    require_refused_in_one_line(main, tiny_model, capsys, tmp_path)
