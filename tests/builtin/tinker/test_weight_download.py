"""Files of weights over HTTP: what is fetched, from where, and who gets the key."""

import io
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from distillkit.errors import RunFailedError
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.tinker.weight_download import fetch_archive, fetch_files

PATH = "tinker://run-1/sampler_weights/final-1"
ARCHIVE = "/api/v1/training_runs/run-1/checkpoints/final-1/archive"


class Files:
    """A server of files: by path a body, an address that it sends on to, or a status."""

    def __init__(self) -> None:
        self.found: dict[str, bytes | str | int] = {}
        self.keys: list[tuple[str, str | None]] = []
        files = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                files.keys.append((path, self.headers.get("X-API-Key")))
                found = files.found.get(path, 404)
                self.send_response(found if isinstance(found, int) else 302 if isinstance(found, str) else 200)
                if isinstance(found, str):
                    self.send_header("Location", found)
                body = found if isinstance(found, bytes) else b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.root = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def two_servers() -> Iterator[tuple[Files, Files]]:
    servers = (Files(), Files())
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Key:
    monkeypatch.setenv("TINKER_API_KEY", "tml-0123456789")
    return Key.read("TINKER_API_KEY")


def packed(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


ADAPTER = packed(x__adapter_config_dot_json="{}", x__adapter_model_dot_safetensors="weights", dot_dot__more="no")


def test_an_archive_is_fetched_where_it_leads_and_the_key_stays_at_the_server(
    two_servers: tuple[Files, Files], key: Key, tmp_path: Path
) -> None:
    server, storage = two_servers
    server.found[ARCHIVE] = f"{storage.root}/signed?signature=secret"
    storage.found["/signed"] = ADAPTER
    fetch_archive(server.root, key, PATH, tmp_path, 5.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (tmp_path / "adapter_model.safetensors").read_text() == "weights"
    assert server.keys == [(ARCHIVE, "tml-0123456789")]
    assert storage.keys == [("/signed", None)]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (404, "HTTP 404"),
        (b"no archive", "cannot be read"),
        (ADAPTER[:60], "cannot be read"),
        (packed(other="x"), "holds no adapter_config.json, only other"),
        (ARCHIVE, "redirects more than 3 times"),
    ],
    ids=["not there", "no archive", "cut off", "no adapter", "a circle"],  # an archive holds the time of its making
)
def test_what_is_wrong_with_an_archive_is_said(
    two_servers: tuple[Files, Files], key: Key, tmp_path: Path, found: bytes | str | int, said: str
) -> None:
    two_servers[0].found[ARCHIVE] = found
    with pytest.raises(RunFailedError, match=said):
        fetch_archive(two_servers[0].root, key, PATH, tmp_path, 5.0)
    assert not (tmp_path / "archive").exists()


def test_signed_files_are_fetched_below_the_folder_alone(
    two_servers: tuple[Files, Files], key: Key, tmp_path: Path
) -> None:
    storage = two_servers[1]
    storage.found |= {"/a": b"config", "/b": b"weights"}
    fetch_files({"a.json": f"{storage.root}/a?s=1", "sub/b.bin": f"{storage.root}/b?s=2"}, tmp_path, 5.0)
    assert (tmp_path / "sub/b.bin").read_bytes() == b"weights"
    assert {sent for _, sent in storage.keys} == {None}
    for name in ("../out", "/out"):
        with pytest.raises(RunFailedError, match="lies elsewhere"):
            fetch_files({name: f"{storage.root}/a"}, tmp_path, 5.0)
    with pytest.raises(RunFailedError) as caught:
        fetch_files({"c": f"{storage.root}/c?signature=secret"}, tmp_path, 5.0)
    assert "secret" not in str(caught.value)
