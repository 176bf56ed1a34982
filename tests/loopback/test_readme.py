"""The code in `loopback/README.md` runs."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer

README = (Path(__file__).parents[2] / "loopback/README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_server_is_started_and_counts_requests() -> None:
    asked = "httpx.get(server.url + '/v1/models')"
    exec(re.sub(r"\.\.\. +#", f"{asked}  #", BLOCKS[0]), {"httpx": httpx})


def test_a_service_is_started_and_leaves_nothing(tiny_model: str) -> None:
    pytest.importorskip("torch")
    for code, name in zip(BLOCKS[1:3], ("LoopbackService", "TinkerService"), strict=True):
        assert name in code
        exec(code.replace("/path/to/a/tiny/model", tiny_model), {})


def test_faults_are_added() -> None:
    with LoopbackServer(CategoricalModel()) as server:
        statuses: list[int] = []

        def ask() -> None:
            body = {"model": "loopback", "prompt": [5, 6], "max_tokens": 1}
            statuses.extend(httpx.post(f"{server.url}/v1/completions", json=body).status_code for _ in range(7))

        names: dict[str, Any] = {"server": server, "ask": ask}
        exec(BLOCKS[3].replace("\n...\n", "\nask()\n"), names)
    assert statuses == [503, 503, 200, 200, 200, 200, 200]


def test_the_fixture_is_code() -> None:
    compile(BLOCKS[4], "README.md", "exec")
