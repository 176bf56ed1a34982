"""What a run of a real model left, evaluated, asked and exported: the weights are those that were trained."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import question, read_jsonl
from helpers import tiny_models
from helpers.tiny_adapters import change_tensors
from helpers.umask import require_umask
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import distillkit
from distillkit import RunConfig, RunResult
from distillkit.cli.main import app
from distillkit.testing import make_context
from distillkit_builtin.local.export import export_check, merged_export
from distillkit_builtin.local.student import LocalStudent

Make = Callable[..., RunConfig]
SCORER = {"name": "local", "dtype": "float32", "device": "cpu"}


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def half_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model in bfloat16, as most models are."""
    folder = tmp_path_factory.mktemp("half")
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def trained(
    half_model: str, other_tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], RunResult]:
    """A run of two steps, with both checkpoints: a LoRA of a rank, or all weights."""
    results: dict[int, RunResult] = {}
    folder = tmp_path_factory.mktemp("runs")

    def make(rank: int) -> RunResult:
        if rank not in results:
            for name in ("train", "heldout"):
                rows = [json.dumps(question(f"{name} {i}")) for i in range(4)]
                (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
            student: dict[str, Any] = {"name": "local", "model": half_model, "dtype": "float32", "device": "cpu"}
            results[rank] = distillkit.run(
                {
                    "name": f"rank-{rank}",
                    "log_path": str(folder / "{name}"),
                    "data": {"path": str(folder / "train.jsonl"), "eval_path": str(folder / "heldout.jsonl")},
                    "student": {**student, "lora_rank": rank, "learning_rate": 0.02, "lr_schedule": "linear"},
                    "teachers": [{"model": other_tiny_model, "scorer": SCORER}],
                    "sampling": {"max_completion_tokens": 8},
                    "train": {"prompt_groups_per_step": 2, "save_every": 1, "keep_last": 2},
                    "probe": {"at_start": "never"},
                    "sinks": [],
                }
            )
        return results[rank]

    return make


def weights(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        yield from ((name, file.get_tensor(name)) for name in list(file.keys()))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(3, 40)[None]).logits
    return found


@pytest.mark.parametrize("rank", [4, 0])
def test_eval_finds_what_the_run_found_of_a_checkpoint_and_of_the_export(
    trained: Callable[[int], RunResult], rank: int, tmp_path: Path
) -> None:
    result = trained(rank)
    output = call("eval", result.run_dir, "--out", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["eval"] == result.eval["after"]
    assert found["before"] == result.eval["before"]
    assert "learning rates" not in output  # of a plan that nobody is going to follow
    moved = tmp_path / "run"
    shutil.copytree(result.run_dir, moved, ignore=shutil.ignore_patterns("checkpoints"))
    call("eval", moved, "--out", tmp_path / "b.json")
    exported = json.loads((tmp_path / "b.json").read_text())
    assert exported["weights"].endswith("/model" if rank == 0 else "/adapter")
    assert exported["eval"]["reverse_kl"] == pytest.approx(result.eval["after"]["reverse_kl"], rel=1e-5)


@pytest.mark.parametrize("rank", [4, 0])
def test_generate_writes_what_the_evaluations_sampled(
    trained: Callable[[int], RunResult], rank: int, tmp_path: Path
) -> None:
    result = trained(rank)
    samples = [sample for sample in read_jsonl(result.run_dir / "samples.jsonl") if sample["split"] == "heldout"]
    exported = tmp_path / "run"
    shutil.copytree(result.run_dir, exported, ignore=shutil.ignore_patterns("checkpoints"))
    for run_dir in (result.run_dir, exported):
        output = call("generate", run_dir, "--json", "--rows", "1", "-q")
        (found,) = json.loads(output[output.index("[\n") :])
        texts = {sample["step"]: sample["text"] for sample in samples if sample["question"] == found["question"]}
        assert (found["before"]["text"], found["after"]["text"]) == (texts[0], texts[2])
        assert texts[0] != texts[2]


def test_a_merged_model_is_base_and_adapter_in_the_bases_format(
    trained: Callable[[int], RunResult], half_model: str, tmp_path: Path
) -> None:
    result = trained(4)
    out = tmp_path / "merged"
    assert f"the whole model after step 2: {out} (" in call("export", result.run_dir, "--merge", out)
    merged = AutoModelForCausalLM.from_pretrained(out)
    base = AutoModelForCausalLM.from_pretrained(half_model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(result.adapter_path))
    assert merged.dtype == torch.bfloat16
    assert {tensor.dtype for _, tensor in weights(out)} == {torch.bfloat16}
    assert (logits(merged.float()) - logits(adapted)).norm() < 0.02 * logits(adapted).norm()
    assert (logits(merged) - logits(AutoModelForCausalLM.from_pretrained(half_model))).norm() > 0.1
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.chat_template, tokenizer.eos_token_id) == (tiny_models.CHATML, tiny_models.EOS)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == tiny_models.EOS
    card = (out / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "The LoRA that was trained is merged into the weights, which are bfloat16." in card
    assert str(Path(half_model).parent) not in card
    assert not list(tmp_path.glob(".*"))


def test_a_merged_model_may_be_read_by_whom_the_umask_lets(
    trained: Callable[[int], RunResult], tmp_path: Path, umask: int
) -> None:
    call("export", trained(4).run_dir, "--merge", tmp_path / "merged")
    assert (tmp_path / "merged/model.safetensors").is_file()
    assert require_umask(tmp_path / "merged", umask) > 5


def test_in_float32_it_is_base_and_adapter_to_rounding_also_of_an_earlier_step(
    trained: Callable[[int], RunResult], half_model: str, tmp_path: Path
) -> None:
    result = trained(4)
    call("export", result.run_dir, "--step", "1", "--to", tmp_path / "one")
    call("export", result.run_dir, "--step", "1", "--merge", tmp_path / "m", "student.export_dtype=float32")
    base = AutoModelForCausalLM.from_pretrained(half_model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "one/adapter"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert merged.dtype == torch.float32
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-4, atol=1e-4)
    last = dict(safe_tensors(result.adapter_path))
    assert any(not torch.equal(tensor, last[name]) for name, tensor in safe_tensors(tmp_path / "one/adapter"))


def safe_tensors(adapter: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        yield from ((name, file.get_tensor(name)) for name in list(file.keys()))


def test_all_weights_are_exported_in_the_format_that_was_chosen(
    trained: Callable[[int], RunResult], tmp_path: Path
) -> None:
    result = trained(0)
    assert {tensor.dtype for _, tensor in weights(result.adapter_path)} == {torch.float32}
    assert json.loads((result.adapter_path / "config.json").read_text())["dtype"] == "float32"
    call("export", result.run_dir, "--step", "2", "--to", tmp_path / "half", "student.export_dtype=base")
    call("export", result.run_dir, "--merge", tmp_path / "same")
    half, whole, same = (
        dict(weights(folder)) for folder in (tmp_path / "half/model", result.adapter_path, tmp_path / "same")
    )
    assert half.keys() == whole.keys() == same.keys()
    for name, tensor in whole.items():
        assert torch.equal(half[name], tensor.to(torch.bfloat16))
        assert torch.equal(same[name], tensor)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "half/model")
    assert loaded.dtype == torch.bfloat16


def test_a_run_exports_in_the_bases_format_where_that_is_its_option(local_config: Make, half_model: str) -> None:
    student = {"lora_rank": 0, "model": half_model, "export_dtype": "base"}
    result = distillkit.run(local_config(student=student, train={"max_steps": 1}))
    assert {tensor.dtype for _, tensor in weights(result.adapter_path)} == {torch.bfloat16}
    assert json.loads((result.adapter_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert "not what was trained" not in (result.adapter_path / "README.md").read_text()


def test_what_is_read_back_as_something_else_is_no_export(
    trained: Callable[[int], RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, out = trained(4), tmp_path / "merged"
    proven = export_check.model_problem

    def damaged(path: Path, expected: Any) -> str | None:
        change_tensors(
            path, lambda tensors: {n: x + ("0.mlp.up" in n) for n, x in tensors.items()}, "model.safetensors"
        )
        return proven(path, expected)

    monkeypatch.setattr(merged_export, "model_problem", damaged)
    assert "is not what was trained: 1 tensors come back as others" in call(
        "export", result.run_dir, "--merge", out, code=1
    )
    assert not out.exists()


def test_another_process_count_is_said(
    trained: Callable[[int], RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    message = call("export", trained(4).run_dir, "--merge", tmp_path / "m", code=2)
    assert "export works in one process; start it without torchrun" in message


def test_merging_needs_no_open_student(trained: Callable[[int], RunResult], half_model: str, tmp_path: Path) -> None:
    student = LocalStudent(model=half_model, device="cpu")
    (tmp_path / "m").mkdir()
    asyncio.run(student.merge(make_context(), trained(4).adapter_path, tmp_path / "m"))
    assert np.isfinite(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "m")).float().numpy()).all()
