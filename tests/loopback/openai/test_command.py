"""`python -m distillkit_loopback.openai`, by which the tutorial is tried without a GPU."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import read_jsonl

from distillkit_loopback.openai.__main__ import main
from loopback.commands import (
    MODEL,
    distillkit,
    require_loopback_alone,
    require_refused_in_one_line,
    served,
    write_files,
)

Told = Callable[[], str]


def asked(address: str, path: str, **options: Any) -> httpx.Response:
    return httpx.get(f"{address}{path}", verify=False, timeout=60, **options)


@pytest.fixture
def address(capsys: pytest.CaptureFixture[str]) -> Told:
    """Where the server says that it listens."""

    def find() -> str:
        found = re.search(
            r"is served at (http://127\.0\.0\.1:\d+)/v1 as \w+ does; Ctrl-C ends it", capsys.readouterr().out
        )
        assert found is not None
        return found.group(1)

    return find


def test_it_serves_a_model_until_it_is_to_stop(tiny_model: str, address: Told) -> None:
    seen = []

    def look() -> None:
        seen.append(address())
        (served,) = asked(seen[0], "/v1/models").json()["data"]
        assert (served["id"], served["root"], served["max_model_len"]) == ("smol", tiny_model, 64)
        body = {"model": "smol", "prompt": [1, 70, 80], "max_tokens": 2, "return_token_ids": True}
        completion = httpx.post(f"{seen[0]}/v1/completions", json=body, verify=False, timeout=60).json()
        assert len(completion["choices"][0]["token_ids"]) >= 1

    assert main([tiny_model, "--port", "0", "--name", "smol", "--context-length", "64"], look) == 0
    with pytest.raises(httpx.ConnectError):
        asked(seen[0], "/health")


def test_it_imitates_servers_that_name_no_ids_and_ask_for_keys(
    tiny_model: str, address: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "abc")

    def look() -> None:
        where = address()
        assert asked(where, "/v1/models").status_code == 401
        key = {"Authorization": "Bearer abc"}
        assert asked(where, "/v1/models", headers=key).status_code == 200
        body = {"prompt": [1, 70], "max_tokens": 1, "return_token_ids": True}
        told = httpx.post(f"{where}/v1/completions", json=body, headers=key, verify=False, timeout=60).json()
        assert "token_ids" not in told["choices"][0]

    command = [tiny_model, "--port", "0", "--flavor", "echo", "--no-ids", "--api-key-env", "TEACHER_KEY"]
    assert main(command, look) == 0


def test_what_cannot_be_served_is_one_line(tiny_model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    require_refused_in_one_line(main, tiny_model, capsys, tmp_path)


@pytest.mark.slow
def test_a_run_goes_through_the_command_as_the_docs_say(tiny_model: str, tmp_path: Path) -> None:
    with served("distillkit_loopback.openai", tiny_model, "--port", "0") as (line,):
        address = re.search(r"http://127\.0\.0\.1:(\d+)/v1", line)
        assert address is not None
        require_loopback_alone(int(address.group(1)))
        in_float32 = {"{name: local,": "{name: local, dtype: float32,"}
        write_files(tmp_path, {MODEL: tiny_model, "http://127.0.0.1:8000/v1": address.group(), **in_float32})
        assert distillkit(tmp_path, [["check", "served.yaml"], ["run", "served.yaml"]]) == [0, 0]
    summary = json.loads((tmp_path / "runs/served/summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("completed", 2)
    first, *_ = read_jsonl(tmp_path / "runs/served/metrics.jsonl")
    assert abs(first["train/reverse_kl"]) < 1e-3  # the student is its own teacher


def test_a_fault_stands_from_start_to_end(tiny_model: str, address: Told) -> None:
    def look() -> None:
        where = address()
        body = {"model": tiny_model, "prompt": [1, 70, 80], "max_tokens": 6, "return_token_ids": True}

        def sampled(**sent: Any) -> set[tuple[int, ...]]:
            answers = [
                httpx.post(f"{where}/v1/completions", json={**body, "seed": seed, **sent}, verify=False, timeout=60)
                for seed in range(4)
            ]
            return {tuple(answer.json()["choices"][0]["token_ids"]) for answer in answers}

        assert len(sampled()) == 1
        assert len(sampled(top_k=-1)) > 1

    assert main([tiny_model, "--port", "0", "--fault", 'generation-config={"top_k": 1}'], look) == 0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("typo", "--fault typo: known are generation-config, jitter, order, replica"),
        ("jitter=much", "--fault jitter=much: could not convert"),
        ("generation-config={}", "--fault generation-config={}: no object with any of temperature"),
    ],
)
def test_a_fault_that_is_none_is_refused(
    tiny_model: str, fault: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([tiny_model, "--port", "0", "--fault", fault], lambda: None) == 2
    assert message in capsys.readouterr().err
