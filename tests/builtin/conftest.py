"""What folders of backends share: a prepared run on rows and templates of a test, loopback servers, weights to push."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.chat_templates import TEMPLATES
from loopback.openai.wire import Serve, write_adapter

from distillkit import Registry, RunConfig
from distillkit.preflight.prepared_run import PreparedRun, prepare_run
from distillkit.records import Weights
from distillkit_builtin.remote import circuit_breaker, connection, preflight_request, retries
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer

Make = Callable[..., RunConfig]
OF_SO_FEW_ROWS = ("no held-out rows", "earlier row", "prompt_groups_per_step")
"""What notes say that have nothing to do with what is in the prompts."""


@pytest.fixture
def prepared(
    local_config: Make, jsonl: Callable[..., str], tiny_model: str, other_tiny_model: str, tmp_path: Path
) -> Callable[..., PreparedRun]:
    """A prepared run on rows, with templates of student and teacher that are named."""

    def prepare(rows: Sequence[Any], student: str = "chatml_tools", teacher: str = "", **over: Any) -> PreparedRun:
        teacher = teacher or student
        models = {name: tmp_path / name for name in {student, teacher}}
        for name, folder in models.items():
            folder.mkdir(exist_ok=True)
            for file in Path(tiny_model).iterdir():
                (folder / file.name).unlink(missing_ok=True)
                (folder / file.name).symlink_to(file)
            (folder / "chat_template.jinja").unlink(missing_ok=True)
            (folder / "chat_template.jinja").write_text(TEMPLATES.get(name, name))
        values = {
            "data": {"path": jsonl(rows), **over.pop("data", {})},
            "student": {"model": str(models[student])},
            "teachers": [
                {"model": str(models[teacher]), "route_value": "t", "scorer": {"name": "local", "device": "cpu"}}
                | over.pop("of_teacher", {})
            ],
        }
        config = local_config(**values, **over)
        run = prepare_run(config, Registry.discover(), lambda note: None)
        of_prompts = (note for note in run.notices if not any(other in note.message for other in OF_SO_FEW_ROWS))
        by_line = (replace(note, message=re.sub(r"\S+jsonl:(\d+)", r"line \1", note.message)) for note in of_prompts)
        return replace(run, notices=tuple(by_line))

    return prepare


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server of a CategoricalModel, or another one; it is stopped after the test.

    Whoever asks it backs off for hundredths of a second, and reads no CA bundle: loopback has no TLS, and a bundle for
    every client takes longer than most tests.
    """
    monkeypatch.setattr(retries, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(retries, "LONGEST_BACKOFF", 0.05)
    monkeypatch.setattr(circuit_breaker, "FIRST_COOL_DOWN", 0.05)
    monkeypatch.setattr(circuit_breaker, "LONGEST_COOL_DOWN", 0.1)
    for module in (preflight_request, connection):
        monkeypatch.setattr(module, "tls", lambda options: False)
    running: list[LoopbackServer] = []

    def start(model: Any = None, **options: Any) -> LoopbackServer:
        running.append(LoopbackServer(model or CategoricalModel(), **options))
        running[-1].start()
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def real(tiny_model: str) -> Any:
    """The tiny Llama, to be served."""
    pytest.importorskip("torch")
    from distillkit_loopback.openai.network_model import NetworkModel

    return NetworkModel.load(tiny_model)


@pytest.fixture
def adapters(tmp_path: Path) -> Sequence[Weights]:
    """Three versions."""
    return [Weights(v, "peft", Path(write_adapter(tmp_path / f"v{v}", str(v).encode()))) for v in range(3)]


@pytest.fixture
def models(tmp_path: Path) -> Sequence[Weights]:
    """Three versions of all weights."""
    for version in range(3):
        (tmp_path / f"m{version}").mkdir()
        (tmp_path / f"m{version}" / "model.safetensors").write_text(str(version))
    return [Weights(version, "safetensors", tmp_path / f"m{version}") for version in range(3)]
