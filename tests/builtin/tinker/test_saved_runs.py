"""Commands on a run of student `tinker`, with a teacher at the same server."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import distillkit
from builtin.tinker.conftest import Start
from builtin.tinker.runs import STUDENT, make_config
from distillkit.cli.main import app

pytest.importorskip("tinker")
pytest.importorskip("torch")

TRAINING = ("/api/v1/forward_backward", "/api/v1/optim_step")


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize("kind", ["hosted", "skyrl"])
def test_a_run_is_evaluated_shown_diagnosed_and_pushed(
    start: Start, tmp_path: Path, tiny_model: str, kind: str
) -> None:
    service = start(kind)
    scorer = {"name": "tinker", "base_url": service.base_url}
    teacher = {"model": STUDENT, "tokenizer_model": tiny_model, "scorer": scorer}
    held_out = {"eval_path": str(tmp_path / "train.jsonl"), "max_eval_rows": 2}
    train = {"max_steps": 2, "save_every": 1, "keep_last": 2}
    config = make_config(
        service, tmp_path, tiny_model, "", teachers=[teacher], data=held_out, train=train, evaluators=["reverse_kl"]
    )
    run_dir = distillkit.run(config).run_dir
    trained = {path: service.traffic.counts[path] for path in TRAINING}
    call("eval", run_dir, "--step", "2")
    call("eval", run_dir, "--step", "1")
    summary = json.loads((run_dir / "summary.json").read_text())["eval"]
    found = {step: json.loads((run_dir / f"evaluations/step-{step}.json").read_text()) for step in (1, 2)}
    assert found[2]["eval"] == summary["after"]
    assert found[1]["eval"] != summary["after"]
    assert "after step 2" in call("generate", run_dir, "--rows", "1")
    refused = call("export", run_dir, "--step", "1", "--to", tmp_path / "out", code=2)
    assert "writes no weights of a checkpoint onto this machine once its run has ended" in refused
    assert "the adapter that the run ended with is" in refused
    assert "PEFT merges it" in call("export", run_dir, "--merge", tmp_path / "out", code=2)
    assert "adapter_model.safetensors" in call("push", run_dir, "org/mine", "--license", "mit", "--dry-run")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.dump()), encoding="utf-8")
    call("diagnose", tmp_path / "config.yaml", "--rows", "2")  # SkyRL gives no top-K, and it does without
    assert {path: service.traffic.counts[path] for path in TRAINING} == trained  # none of them measures gradients
    assert kind == "skyrl" or not service.sessions  # SkyRL's end by time
