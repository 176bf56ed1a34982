"""A dataset behind an address: fetched once, or one line says why not."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from builtin.fireworks.recipe.recipe_configs import make
from distillkit.errors import InputError
from distillkit_builtin.fireworks.recipe import dataset
from distillkit_builtin.fireworks.recipe.translate import translate


class _Files(BaseHTTPRequestHandler):
    answers: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        status = self.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        if status == 200:
            self.wfile.write(b'{"messages": []}\n')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(dataset, "PAUSE_SECONDS", 0.0)
    server = HTTPServer(("127.0.0.1", 0), _Files)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/rows.jsonl"
    server.shutdown()
    server.server_close()


def test_a_dataset_behind_an_address_is_fetched_once(address: str, tmp_path: Path) -> None:
    _Files.answers = [503, 200]
    config = translate(make(log_path=str(tmp_path / "logs"), dataset=address)).config
    assert Path(config.data.path).parent == tmp_path / "logs"
    assert Path(config.data.path).read_text() == '{"messages": []}\n'
    assert translate(make(log_path=str(tmp_path / "logs"), dataset=address)).config.data.path == config.data.path


@pytest.mark.parametrize(("answers", "reason"), [([404], "responds 404"), ([500, 502, 503], "responds 503")])
def test_a_dataset_that_cannot_be_fetched(address: str, tmp_path: Path, answers: list[int], reason: str) -> None:
    _Files.answers = list(answers)
    with pytest.raises(InputError, match=f"dataset: http://127.* cannot be fetched: .*{reason}"):
        dataset.local_dataset(address, tmp_path)
    assert not list(tmp_path.iterdir())
    assert not _Files.answers


def test_nobody_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "PAUSE_SECONDS", 0.0)
    with pytest.raises(InputError, match=r"cannot be fetched: .*refused; give the path of a JSONL file instead"):
        dataset.local_dataset("http://127.0.0.1:9/rows.jsonl", tmp_path)
