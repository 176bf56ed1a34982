"""What the Hugging Face hub answers, said in our words: a hub on this machine answers whatever a test wants."""

import json
import logging
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from distillkit import InputError
from distillkit.testing import make_context
from distillkit_builtin import hub, model_source
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model_files import model_config
from distillkit_builtin.local.model_files.downloads import download_note


class Hub(BaseHTTPRequestHandler):
    """Answers every request alike, but for the files that it has."""

    status, code = 404, "RepoNotFound"
    files: dict[str, int] = {}  # noqa: RUF012 - a test's own
    asked: list[str] = []  # noqa: RUF012 - the same

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/api/models/") and self.files:
            siblings = [{"rfilename": name, "size": size} for name, size in self.files.items()]
            self.answer(200, json.dumps({"_id": "1", "id": "org/model", "siblings": siblings}).encode())
        else:
            self.answer(self.status, b"{}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if self.code and status != 200:
            self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


Answering = Callable[..., type[Hub]]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Answering]:
    """Let the hub answer with a status and an error code, or have files; the cache is empty, and nobody waits."""
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(tmp_path / "cache"), raising=False)
    forget()
    servers = []

    def answer(status: int = 404, code: str = "", **files: int) -> type[Hub]:
        named = {name.replace("__", "."): size for name, size in files.items()}
        handler = type("Answers", (Hub,), {"status": status, "code": code, "files": named, "asked": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        return handler

    yield answer
    for server in servers:
        server.shutdown()
        server.server_close()
    forget()


def forget() -> None:
    """What this process has found out of the hub."""
    logger = logging.getLogger(hub.ASKING)
    for each in list(logger.filters):
        logger.removeFilter(each)
    hub._told_once.cache_clear()
    model_source._hub_adapter.cache_clear()
    model_config._read.cache_clear()


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        model_config.read_config(name)
    assert str(caught.value).startswith(f"the config of {name!r} cannot be read: ")
    return str(caught.value).partition(" cannot be read: ")[2]


def test_a_name_that_the_hub_does_not_have(answering: Answering, tmp_path: Path) -> None:
    answering(404, "RepoNotFound")
    assert refusal("org/model") == (
        "the Hugging Face hub has no model of that name, or it is private, and HF_TOKEN is to be set to a token of an "
        "account that may read it"
    )
    assert refusal("model").startswith("there is no directory 'model' here, and the Hugging Face hub has no model")
    (tmp_path / "cache" / "models--org--model-7B").mkdir(parents=True)
    assert refusal("org/modle-7B").endswith(". In the cache there is 'org/model-7B': is that meant?")


def test_a_gated_model(answering: Answering) -> None:
    answering(403, "GatedRepo")
    assert refusal("org/model") == (
        f"it is gated: ask for access on {constants.ENDPOINT}/org/model, and set HF_TOKEN to a token of the account "
        "that has it"
    )


def test_what_is_no_model_for_transformers(answering: Answering) -> None:
    answering(404, "EntryNotFound")
    assert "lacks the file of a model for transformers: it is none" in refusal("org/model")
    assert "it seems to hold GGUF files, a quantized format for inference" in refusal("org/model-GGUF")


def test_a_name_that_cannot_be_one(answering: Answering) -> None:
    answering(404, "RepoNotFound")
    assert refusal("bad name!") == (
        "there is no directory of that name here, and models on the Hugging Face hub are called `org/name`"
    )


def test_without_the_hub_what_is_not_in_the_cache_is_said_to_be_missing_there(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(404, "RepoNotFound")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal("org/model") == (
        f"it is not in the cache ({constants.HF_HUB_CACHE}; HF_HOME says where it is), and HF_HUB_OFFLINE forbids to "
        "ask the hub: unset it, or name a local directory; where no hub is reachable, see docs/your-data.md, "
        '"Without a model hub"'
    )
    with pytest.raises(InputError, match=r"the tokenizer of 'org/model' cannot be read: it is not in the cache"):
        HFTokenizer.load("org/model")
    with pytest.raises(InputError, match=r"the weights of 'org/model' are not, or not all, in the cache .* unset it"):
        download_note(make_context(), "org/model")


def test_a_hub_that_does_not_answer_is_told_once_and_not_waited_for_again(
    answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    asked = answering(503)
    said = refusal("org/model")
    assert said.startswith(f"the Hugging Face hub ({constants.ENDPOINT}) does not answer, and it is not in the cache")
    assert "HF_ENDPOINT names a mirror" in said
    assert [record.getMessage() for record in caplog.records] == [
        "the Hugging Face hub does not answer (HTTP Error 503); it is asked a few more times. HF_HUB_OFFLINE=1 takes "
        "what is in the cache and asks nothing, HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy"
    ]
    assert set(asked.asked) == {"/org/model/resolve/main/adapter_config.json"}  # the first file, and several tries more
    tries = len(asked.asked)
    assert refusal("org/other") == said
    assert "does not say how large they are: it does not answer" in str(download_note(make_context(), "org/model"))
    assert len(asked.asked) == tries


def test_other_messages_of_the_library_pass(answering: Answering, caplog: pytest.LogCaptureFixture) -> None:
    answering()
    assert hub.hub_options() == {}
    logging.getLogger(hub.ASKING).warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


GIB = 10**9


def test_what_will_be_downloaded_is_said_once_there_is_room(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(404, "EntryNotFound", **{"model__safetensors": 3 * GIB, "pytorch_model__bin": 3 * GIB})
    run = make_context()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5 * GIB))
    assert download_note(run, "org/model") == (
        f"3.0 GB of weights of org/model will be downloaded into {constants.HF_HUB_CACHE}, where 5.0 GB are free"
    )
    with pytest.raises(
        InputError, match=r"3.0 GB, 6.0 GB with the run's other models\) into .* make room, or set HF_HOME"
    ):
        download_note(run, "org/other")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=GIB))
    with pytest.raises(InputError, match=r"would be downloaded \(3.0 GB\)"):
        download_note(make_context(), "org/model")


def test_shards_are_added_up(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = {f"model-0000{i}-of-00002__safetensors": GIB for i in (1, 2)}
    answering(404, "EntryNotFound", **shards, model__safetensors__index__json=1000, README__md=7 * GIB)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5 * GIB))
    assert str(download_note(make_context(), "org/model")).startswith("2.0 GB of weights of org/model will be")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"pytorch_model__bin": 3}, r"has no model\.safetensors, only pytorch_model\.bin, which is a pickle"),
        ({"model-Q4__gguf": 3}, r"holds GGUF files \(model-Q4\.gguf\), a quantized format for inference"),
        ({"README__md": 3}, r"has no model\.safetensors, and no other weights"),
    ],
)
def test_what_cannot_be_loaded_is_not_downloaded(answering: Answering, files: dict[str, int], said: str) -> None:
    answering(404, "EntryNotFound", **files)
    with pytest.raises(InputError, match=said):
        download_note(make_context(), "org/model")


def test_a_model_in_a_directory_is_here(tiny_model: str) -> None:
    assert download_note(make_context(), tiny_model) is None
