"""No secret is in anything that a run writes or prints: whole commands, that end well and badly, as loud as can be."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from helpers.loud_commands import HF_TOKEN, PASSWORD, TEACHER_KEY, Done, distillkit, prepare, write

from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


# -- plugins of others, that say whatever they know


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Exceptions of every kind, failures, notices and log messages that hold every secret there is."""
    folder = prepare(tmp_path_factory.mktemp("told"))
    leaky: dict[str, Any] = {
        "teachers": [{"model": "m", "scorer": {"name": "leaky"}}],
        "sinks": ["console", "leaky"],
        "train": {"prompt_groups_per_step": 2, "save_every": 1, "max_failed_fraction": 1.0},
    }
    commands = []
    for how in ("no", "error", "distillkit", "interrupt", "open"):
        commands.append(["run", write(folder, how, student={"name": "leaky", "how": how}, **leaky)])
    resumed = ["run", "distillkit.yaml", "--resume"]
    return distillkit(folder, [*commands, resumed, ["check", "error.yaml"]])


WRITTEN_BY_THE_ENGINE = ("ledger.jsonl", "summary.json")


def test_what_plugins_say_too_much_of_is_neither_printed_nor_logged(told: Done) -> None:
    assert told.codes == [0, 1, 1, 130, 1, 1, 0]
    assert not [one for one in told.leaks() if not any(name in one for name in WRITTEN_BY_THE_ENGINE)]
    assert b"cannot go on with ***, ***, ***, ***, ***, *** through http://***@127.0.0.1:9" in told.printed
    assert b"go on after step 1 with:\n  distillkit run error.yaml -v --resume" in told.printed


def test_nor_is_it_in_the_ledger_and_the_summary(told: Done) -> None:
    assert not told.leaks()
    assert "cannot go on with ***" in (told.folder / "runs/error/summary.json").read_text(encoding="utf-8")
    assert "cannot go on with ***" in (told.folder / "runs/no/ledger.jsonl").read_text(encoding="utf-8")


def test_wandb_keeps_the_key_out_of_its_files_even_if_it_is_told_to_log_everything(folder: Path) -> None:
    pytest.importorskip("wandb")
    config = write(folder, "kept", sinks=[{"name": "wandb", "mode": "offline"}])
    done = distillkit(folder, [["run", config], ["check", config]])
    assert done.codes == [0, 0]
    assert list((folder / "runs/kept/wandb").rglob("debug-internal.log"))
    assert not done.leaks()


# -- teachers over HTTP


def says(status: int, text: str) -> faults.Status:
    return faults.Status(status, body={"error": {"message": text}})


ECHO = f"Incorrect API key {TEACHER_KEY}, sent as Authorization: Bearer {TEACHER_KEY}"
ANSWERS: Mapping[str, tuple[faults.Fault | None, int]] = {
    "fine": (None, 0),
    "refused": (says(401, ECHO), 1),
    "wrong": (says(400, ECHO), 1),
    "cut-off": (says(400, "y" * 480 + TEACHER_KEY), 1),
    "broken": (says(500, ECHO), 1),
    "garbage": (faults.Garbage(), 1),
}


def test_a_key_that_a_teachers_server_repeats_goes_nowhere(folder: Path) -> None:
    commands, wanted = [], []
    with ExitStack() as stack:
        for name, (fault, code) in ANSWERS.items():
            server = stack.enter_context(LoopbackServer(CategoricalModel(), api_key=TEACHER_KEY))
            if fault is not None:
                server.faults.add(fault, where="/v1/completions", after=3, times=None)
            scorer = {"name": "http_bytes", "base_url": server.url, "api_key_env": "TEACHER_LOGIN"}
            teacher = {"model": "loopback", "scorer": {**scorer, "timeouts": {"retry": 0.3}}}
            commands.append(["run", write(folder, name, teachers=[teacher])])
            wanted.append(code)
        closed = stack.enter_context(LoopbackServer(CategoricalModel()))
        closed.faults.add(says(401, ECHO), where="/v1/models", times=None)
        teacher = {"model": "loopback", "scorer": {**scorer, "base_url": closed.url}}
        config = write(folder, "closed", teachers=[teacher])
        done = distillkit(folder, [*commands, ["run", config], ["check", config]])
    assert done.codes == [*wanted, 2, 2]
    assert not done.leaks()
    for words in (b"refuses the key: Incorrect API key ***, sent", b"y***", b"is $TEACHER_LOGIN the right key?"):
        assert words in done.printed


# -- options that hold what they must not

BAD_ADDRESSES = [
    f"http://me:{quote(PASSWORD, safe='')}@host/v1",
    f"http://me:{PASSWORD}@host/v1",
    f"http://{PASSWORD}@host",
    f"me:{PASSWORD}@host:80",
    f"//me:{PASSWORD}@host",
    f"http://host/v1?key={PASSWORD}",
    f"http://host/v1#{PASSWORD}",
]
BAD_OPTIONS: list[dict[str, Any]] = [
    *({"base_url": address} for address in BAD_ADDRESSES),
    {"base_url": [f"http://me:{PASSWORD}@host", 5]},
    {"base_url": {"password": PASSWORD}},
    {"api_key": HF_TOKEN},
    {"api_key_env": HF_TOKEN},
    {"api_key_env": [PASSWORD]},
]


def test_options_that_hold_a_secret_are_refused_and_not_repeated(folder: Path) -> None:
    commands = []
    for number, options in enumerate(BAD_OPTIONS):
        scorer = {"name": "http_bytes", "base_url": "http://127.0.0.1:9", **options}
        config = write(folder, f"bad-{number}", teachers=[{"model": "loopback", "scorer": scorer}])
        commands += [["run", config], ["check", config]]
    done = distillkit(folder, commands)
    assert set(done.codes) == {2}
    assert not done.leaks()
    assert not list((folder / "runs").glob("bad-*"))


def test_nor_are_they_repeated_where_the_command_line_gave_them(folder: Path) -> None:
    config = write(folder, "fine", teachers=[{"model": "m", "scorer": {"name": "http_bytes", "base_url": "http://h"}}])
    options = [*(f"base_url={address}" for address in BAD_ADDRESSES), f"api_key={PASSWORD}", f"api_key_env={PASSWORD}"]
    done = distillkit(folder, [["check", config, f"teachers.0.scorer.{option}"] for option in options])
    assert set(done.codes) == {2}
    assert not done.leaks()


# -- what stands between: proxies, and the model hub


class Echo(BaseHTTPRequestHandler):
    """Refuses every request, and repeats its headers wherever there is room: body, reason and headers."""

    def refuse(self) -> None:
        held = "; ".join(f"{name}: {value}" for name, value in self.headers.items())
        body = json.dumps({"error": f"not with {held}"}).encode()
        self.send_response(401, f"not with {held}")
        self.send_header("x-error-message", f"not with {held}")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_HEAD = do_CONNECT = refuse  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def echoing() -> Iterator[str]:
    """`host:port` of a server that repeats what it hears."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_neither_a_proxys_password_nor_the_hubs_token_is_repeated(folder: Path) -> None:
    commands = []
    for scheme in ("http", "https"):
        scorer = {"name": "http_bytes", "base_url": f"{scheme}://teacher.invalid", "api_key_env": "TEACHER_LOGIN"}
        commands.append(["check", write(folder, scheme, teachers=[{"model": "m", "scorer": scorer}])])
    local = {"model": "org/gated", "scorer": {"name": "local"}}
    commands.append(["check", write(folder, "hub", student={"name": "local", "model": "org/gated"}, teachers=[local])])
    commands.append(["run", "hub.yaml"])
    # At `debug` transformers prints, through a handler of its own, what a hub answers, and no hub repeats a token.
    with echoing() as server:
        hub = {"HF_ENDPOINT": f"http://{server}", "TRANSFORMERS_VERBOSITY": "info"}
        done = distillkit(folder, commands, proxy=server, **hub)
    assert set(done.codes) == {2}
    assert b"teacher.invalid/v1/models: HTTP 401: not with " in done.printed
    assert b"the config of 'org/gated' cannot be read: " in done.printed
    assert not done.leaks()
