"""`distillkit view` over real HTTP on loopback: who gets what, also while a run is written."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.sample_lines import run_directory, sample_line

from distillkit.run_directory.directory import HEADER
from distillkit.view.found_runs import found_runs
from distillkit.view.pages import Pages
from distillkit.view.run_card import MetricsTail
from distillkit.view.serve import listening, server_of

TOKEN = "a-token-of-this-test"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    lines = [sample_line(["secret-token", " b"], [-1, -2], [-2, -1])]
    run_directory(folder / "first", lines, name="first")
    (folder / "first/metrics.jsonl").write_text('{"step": 1, "train/reverse_kl": 0.5}\n')
    return folder


@pytest.fixture
def client(runs: Path) -> Iterator[httpx.Client]:
    server = server_of(Pages(runs), TOKEN)
    with listening(0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            yield client
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def test_an_address_that_was_told_refuses_nobody_before_the_server_runs() -> None:
    with listening(0) as listener, socket.create_connection(listener.getsockname(), timeout=5):
        pass


def _told(client: httpx.Client) -> dict[str, Any]:
    return {run["name"]: run for run in client.get(f"/{TOKEN}/runs.json").json()["runs"]}


def test_the_list_and_a_report(client: httpx.Client) -> None:
    index = client.get(f"/{TOKEN}/")
    assert index.status_code == 200
    assert "connect-src &#39;self&#39;" in index.text
    run = _told(client)["first"]
    assert (run["step"], run["curve"]) == (1, [[1, 0.5]])
    report = client.get(f"/{TOKEN}/run/{run['key']}/")
    assert "secret-token" in report.text
    assert client.get(f"/{TOKEN}/run/{run['key']}/version.json").json()["version"] in report.text


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/another-token/",
        "/another-token/runs.json",
        f"/{TOKEN[:-1]}/",
        f"/{TOKEN}",
        f"/{TOKEN}/runs/first/config.yaml",
        f"/{TOKEN}/run/first/",
        f"/{TOKEN}/run/..%2F..%2Fetc%2Fpasswd/",
        f"/{TOKEN}/../../../etc/passwd",
        f"/{TOKEN}/run/0123456789abcdef/version.json",
        "/%C3%A9/",
    ],
)
def test_everything_else_is_nothing_whether_it_is_there_or_not(client: httpx.Client, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code == 404
    assert answer.text == "Nothing is here. The address is the one that `distillkit view` printed.\n"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:80", "10.0.0.1"]
)
def test_a_name_that_was_bound_to_this_machine_gets_nothing(client: httpx.Client, host: str) -> None:
    answer = client.get(f"/{TOKEN}/", headers={"Host": host})
    assert answer.status_code == 400
    assert "runs" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_only_get_is_answered(client: httpx.Client, method: str) -> None:
    assert client.request(method, f"/{TOKEN}/").status_code == 405


def test_no_other_page_may_embed_or_read_it_and_nothing_is_kept(client: httpx.Client) -> None:
    for path in ("/", f"/{TOKEN}/", f"/{TOKEN}/runs.json"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == "frame-ancestors 'none'"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_a_run_that_is_written_is_followed(client: httpx.Client, runs: Path) -> None:
    key = _told(client)["first"]["key"]
    before = client.get(f"/{TOKEN}/run/{key}/version.json").json()["version"]
    with (runs / "first/metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "train/reverse_kl": 0.25}\n{"step": 3, "trai')
    assert _told(client)["first"]["step"] == 2
    assert client.get(f"/{TOKEN}/run/{key}/version.json").json()["version"] != before
    with (runs / "first/metrics.jsonl").open("a") as file:
        file.write('n/reverse_kl": 0.125}\n')
    assert _told(client)["first"]["curve"] == [[1, 0.5], [2, 0.25], [3, 0.125]]
    line = json.dumps(sample_line(["just-written"], [-1], [-2], step=3))
    with (runs / "first/samples.jsonl").open("a") as file:
        file.write(line[: len(line) // 2])
    assert client.get(f"/{TOKEN}/run/{key}/").status_code == 200
    with (runs / "first/samples.jsonl").open("a") as file:
        file.write(line[len(line) // 2 :] + "\n")
    assert "just-written" in client.get(f"/{TOKEN}/run/{key}/").text


def test_a_run_that_begins_appears_and_one_that_is_deleted_goes(client: httpx.Client, runs: Path) -> None:
    second = run_directory(runs / "sweep/second", [], name="second")
    key = _told(client)["second"]["key"]
    assert client.get(f"/{TOKEN}/run/{key}/").status_code == 200
    (second / "config.yaml").unlink()
    assert "second" not in _told(client)
    assert client.get(f"/{TOKEN}/run/{key}/").status_code == 404


def test_damaged_runs_hide_no_others(client: httpx.Client, runs: Path) -> None:
    damaged = runs / "damaged"
    damaged.mkdir()
    (damaged / "config.yaml").write_bytes(HEADER.encode() + b"\n\xff\xfe: [")
    (damaged / "summary.json").write_text('{"verdict": {"overall": 3}, "name": ["x"]}')
    (damaged / "metrics.jsonl").write_bytes(b'[1]\n{"step": "x"}\n\xff\n{"step": 7}\n')
    (damaged / "samples.jsonl").mkdir()
    told = client.get(f"/{TOKEN}/runs.json").json()["runs"]
    assert {run["path"] for run in told} == {"first", "damaged"}
    (key,) = (run["key"] for run in told if run["path"] == "damaged")
    assert client.get(f"/{TOKEN}/run/{key}/").status_code == 200


def test_a_link_out_of_the_folder_is_not_followed(runs: Path, tmp_path: Path) -> None:
    run_directory(tmp_path / "elsewhere", [])
    (runs / "link").symlink_to(tmp_path / "elsewhere")
    assert [run.name for run in found_runs(runs).values()] == ["first"]


def test_a_folder_that_is_a_run_shows_that_run(runs: Path) -> None:
    assert list(found_runs(runs / "first").values()) == [runs / "first"]


def test_the_list_says_what_ended_a_run_that_failed(client: httpx.Client, runs: Path) -> None:
    failed = {"status": "failed", "error": "AlignmentError: the logprob is nan\nwhere"}
    (runs / "first/summary.json").write_text(json.dumps(failed), encoding="utf-8")
    assert _told(client)["first"]["verdict"] == "AlignmentError: the logprob is nan"


def test_metrics_are_read_on_and_anew_behind_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    tail.update()
    path.write_text("".join(f'{{"step": {step}, "train/reverse_kl": {step}}}\n' for step in (1, 2, 3)))
    tail.update()
    assert tail.values == {1: 1.0, 2: 2.0, 3: 3.0}
    path.write_text('{"step": 1, "train/reverse_kl": 9}\n')
    tail.update()
    assert (tail.values, tail.step) == ({1: 9.0}, 1)


def _command(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "distillkit", "view", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_ctrl_c_ends_it_and_each_start_has_another_token(runs: Path) -> None:
    tokens = []
    for _ in range(2):
        process = _command(str(runs), "--no-open", "--quiet")
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address)
        tokens.append(address.split("/")[3])
        for _ in range(200):  # the port is open; whoever serves it may still be starting
            time.sleep(0.02)
            if httpx.get(address, trust_env=False, timeout=30).status_code == 200:
                break
        os.kill(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert (process.returncode, rest) == (0, "")
    assert tokens[0] != tokens[1]


def test_what_is_wrong_is_said_before_anything_is_served(runs: Path) -> None:
    process = _command(str(runs / "nothing"), "--no-open")
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "nothing: no such directory; name the folder with the runs" in said
    with listening(0) as taken:
        port = taken.getsockname()[1]
        taken.listen()
        process = _command(str(runs), "--no-open", "--port", str(port))
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert f"--port {port}: " in said
