"""Runs that sampled from a vLLM server, looked at and exported once they are over."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import question, read_jsonl
from loopback.openai.wire import Serve
from typer.testing import CliRunner

import distillkit
from builtin.http.serving import bodies
from builtin.vllm.pushes import LOAD, UNLOAD
from distillkit import RunConfig, RunResult
from distillkit.cli.main import app
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.server import LoopbackServer

pytest.importorskip("torch")
Make = Callable[..., RunConfig]


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def server(serve: Serve, real: Any) -> LoopbackServer:
    return serve(real)


@pytest.fixture
def trained(server: LoopbackServer, local_config: Make, jsonl: Callable[..., str]) -> RunResult:
    """A run of two steps; what the server was asked by it is forgotten."""
    rows = jsonl([question(f"number {i}") for i in range(4)], "four.jsonl")
    held_out = jsonl([question(f"held out {i}") for i in range(2)], "heldout.jsonl")
    result = distillkit.run(
        local_config(
            data={"path": rows, "eval_path": held_out},
            student={"sampler": {"name": "vllm", "base_url": server.url}},
            sampling={"max_completion_tokens": 6},
            train={"prompt_groups_per_step": 2, "save_every": 1, "keep_last": 2},
        )
    )
    server.traffic.clear()
    return result


def unsaved(result: RunResult, folder: Path) -> Path:
    """The run without its checkpoints: what it exported is all that is left."""
    shutil.copytree(result.run_dir, folder, ignore=shutil.ignore_patterns("checkpoints"))
    return folder


@pytest.mark.parametrize("exported", [False, True], ids=["a checkpoint", "an export"])
def test_generate_samples_from_the_server_and_leaves_nothing_on_it(
    trained: RunResult, server: LoopbackServer, tmp_path: Path, exported: bool
) -> None:
    run_dir = unsaved(trained, tmp_path / "copy") if exported else trained.run_dir
    before = sorted(run_dir.rglob("*"))
    output = call("generate", run_dir, "--json", "--rows", 1, "-q")
    (found,) = json.loads(output[output.index("[\n") :])
    samples = [each for each in read_jsonl(trained.run_dir / "samples.jsonl") if each["split"] == "heldout"]
    texts = {each["step"]: each["text"] for each in samples if each["question"] == found["question"]}
    assert (found["before"]["text"], found["after"]["text"]) == (texts[0], texts[2])
    assert texts[0] != texts[2]
    loaded = [body["lora_name"] for body in bodies(server, LOAD)]
    assert len(loaded) == 2
    assert [body["lora_name"] for body in bodies(server, UNLOAD)] == loaded
    assert not server.catalogue.adapters
    assert sorted(run_dir.rglob("*")) == before


def test_exports_ask_no_server_and_work_when_it_is_gone(
    trained: RunResult, server: LoopbackServer, tmp_path: Path
) -> None:
    server.stop()
    call("export", trained.run_dir, "--merge", tmp_path / "merged")
    call("export", trained.run_dir, "--merge", tmp_path / "earlier", "--step", 1)
    call("export", trained.run_dir, "--to", tmp_path / "one", "--step", 1)
    assert (tmp_path / "one/adapter/adapter_model.safetensors").is_file()
    assert (tmp_path / "merged/model.safetensors").is_file()
    assert (tmp_path / "earlier/model.safetensors").is_file()


def test_generate_without_its_server_says_how_the_student_samples_itself(
    trained: RunResult, server: LoopbackServer, tmp_path: Path
) -> None:
    server.stop()
    output = call("generate", trained.run_dir, "--rows", 1, code=2)
    assert "sampler 'vllm': " in output
    assert "connection refused" in output
    assert output.count("let the student sample itself: student.sampler=null") == 1
    for run_dir in (trained.run_dir, unsaved(trained, tmp_path / "copy")):
        output = call("generate", run_dir, "--json", "--rows", 1, "-q", "student.sampler=null")
        (found,) = json.loads(output[output.index("[\n") :])
        assert found["before"]["text"] != found["after"]["text"]


def test_generate_leaves_nothing_on_a_server_that_fails_on_the_way(trained: RunResult, server: LoopbackServer) -> None:
    server.faults.add(faults.Status(400), where=lambda request: "-v2" in str(request.fields.get("model")), times=None)
    output = call("generate", trained.run_dir, "--rows", 1, code=1)
    assert "answered 400: injected fault" in output
    loaded = [body["lora_name"] for body in bodies(server, LOAD)]
    assert [name.rpartition("-")[2] for name in loaded] == ["v0", "v2"]
    assert [body["lora_name"] for body in bodies(server, UNLOAD)] == loaded
    assert not server.catalogue.adapters
