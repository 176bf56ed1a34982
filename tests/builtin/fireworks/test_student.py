"""Whole runs of student `fireworks`: the real SDK over HTTP, and a real model behind it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import question, read_jsonl
from typer.testing import CliRunner

import distillkit
from builtin.fireworks.conftest import STUDENT, TEACHER
from builtin.fireworks.runs import make_config, nothing_is_left, routed_rows, teacher, two_teachers, write_rows
from distillkit.cli.main import app
from distillkit.errors import InputError
from distillkit.testing import check_plugin, complete_batch, make_context, make_scored_rollouts
from distillkit_builtin.fireworks.batch_codec import as_datums
from distillkit_builtin.fireworks.student import FireworksStudent
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


def logprobs_of(model: str, ids: list[int]) -> list[float]:
    """Of each id but the first, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([ids])).logits[0, :-1]
    picked = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:]).unsqueeze(-1)).squeeze(-1)
    return [float(value) for value in picked]


def test_a_routed_run_trains_on_the_gap_to_two_teachers_and_leaves_nothing_running(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    """What is sent to the trainer is, token by token, what both models say by themselves; what comes of it, the
    trainer's own tests hold against the local one."""
    config = make_config(
        service,
        tmp_path,
        tiny_model,
        rows=routed_rows(),
        teachers=two_teachers(service),
        data={"eval_path": write_rows(tmp_path, routed_rows(4, start=100), "heldout.jsonl"), "epochs": 2},
        train={"prompt_groups_per_step": 8},
    )
    result = distillkit.run(config)
    assert result.steps == 2
    assert nothing_is_left(service)
    first = next(request.body for request in service.requests if request.path.endswith("/forward_backward"))
    sent: Any = first["forward_backward_input"]["data"]  # type: ignore[index,call-overload]  # JSON
    assert len(sent) == 16
    tokens = float(next(row["train/active_tokens"] for row in result.metrics if row["step"] == 1))  # type: ignore[arg-type]
    for datum in sent:
        inputs = {name: tensor["data"] for name, tensor in datum["loss_fn_inputs"].items()}
        ids = [*datum["model_input"]["chunks"][0]["tokens"], inputs["target_tokens"][-1]]
        student, teacher = logprobs_of(tiny_model, ids), logprobs_of(other_tiny_model, ids)
        start = next(at for at, value in enumerate(inputs["logprobs"]) if value)
        assert inputs["logprobs"][start:] == pytest.approx(student[start:], abs=1e-4)
        gaps = [(theirs - mine) / tokens for theirs, mine in zip(teacher, student, strict=True)]
        assert inputs["advantages"] == pytest.approx([*[0.0] * start, *gaps[start:]], abs=1e-5)
    last = next(row for row in result.metrics if row["step"] == 2)
    slugs = [section.teacher.slug for section in config.teachers]
    assert [last[f"teacher_route/{slug}/scored"] for slug in slugs] == [8, 8]
    assert last["concurrency/student/requests"] == 16
    assert [last[f"concurrency/{slug}/requests"] for slug in slugs] == [8, 8]
    assert {"train/loss", "train/reverse_kl", "train/advantage", "fireworks/optim/grad_norm"} <= last.keys()
    assert {"before", "after"} <= result.eval.keys()


@pytest.mark.parametrize("student", [{}, {"lora_rank": 0, "learning_rate": 0.01}], ids=["lora", "all weights"])
def test_a_single_teacher_trains_either_kind_of_student(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, student: dict[str, Any]
) -> None:
    result = distillkit.run(make_config(service, tmp_path, tiny_model, student=student, data={"epochs": 2}))
    assert result.steps == 4
    assert result.summary["trained_completions"] == 32
    assert nothing_is_left(service)
    record = json.loads((result.adapter_path / "model.json").read_text())
    assert record["base_model"] == STUDENT
    assert record["snapshot"].startswith("final-")
    assert record["snapshot"] in (result.adapter_path / "README.md").read_text()


async def test_training_agrees_with_the_local_backends(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    """The same batches, one after another: the second step's loss shows what the first one did to the weights."""
    alike = {"lora_rank": 8, "lora_alpha": 16, "learning_rate": 0.02, "grad_clip_norm": 1.0}
    remote = make_config(service, tmp_path, tiny_model, student=alike).student
    local = LocalStudent(model=tiny_model, dtype="float32", device="cpu", **alike)
    batch = complete_batch(ImportanceSampling(), make_scored_rollouts())
    losses: list[list[float]] = []
    for student in (remote, local):
        context = make_context()
        student.declare(context)
        student.check(context)
        try:
            await student.open(context)
            losses.append([(await student.train(batch)).metrics["train/loss"] for _ in range(3)])
        finally:
            await student.close()
            await context.shared.release(context.user)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][0] != pytest.approx(losses[0][2], abs=1e-2)


def test_a_teacher_equal_to_the_student_gives_a_gap_of_zero_to_rounding(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    result = distillkit.run(
        make_config(
            service,
            tmp_path,
            tiny_model,
            teachers=[teacher(service, STUDENT)],
            train={"prompt_groups_per_step": 8},
        )
    )
    assert abs(result.metrics[0]["train/reverse_kl"]) < 1e-5  # type: ignore[arg-type]  # a number
    for record in read_jsonl(result.run_dir / "samples.jsonl"):
        assert record["student_logprobs"] == pytest.approx(record["teacher_logprobs"][STUDENT], abs=1e-4)


def test_it_keeps_the_contract_of_its_role(service: "LoopbackService", tiny_model: str, tmp_path: Path) -> None:
    options = make_config(service, tmp_path, tiny_model).student
    assert isinstance(options, FireworksStudent)
    check_plugin(options)
    assert nothing_is_left(service)


@pytest.mark.parametrize("before", [False, True])
def test_untouched_weights_are_published_if_that_is_asked_for(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, before: bool
) -> None:
    student = {"weight_sync_before_training": before, "save_final_checkpoint": False}
    distillkit.run(make_config(service, tmp_path, tiny_model, student=student))
    saved = [request for request in service.requests if request.path.endswith("/save_weights_for_sampler")]
    assert len(saved) == (3 if before else 2)


def test_the_weights_of_the_loss_are_folded_into_the_advantages() -> None:
    batch = complete_batch(ImportanceSampling(), make_scored_rollouts())
    for datum, wire in zip(batch.datums, as_datums(batch), strict=True):
        full = [*datum.prompt_ids.tolist(), *datum.response_ids.tolist()]
        inputs = {name: tensor.to_numpy() for name, tensor in wire.loss_fn_inputs.items()}
        assert wire.model_input.to_ints() == full[:-1]
        assert inputs["target_tokens"].tolist() == full[1:]
        before = len(datum.prompt_ids) - 1
        wanted = datum.inputs["advantages"] * datum.inputs["weights"]
        np.testing.assert_allclose(inputs["advantages"], [*[0.0] * before, *wanted])
        np.testing.assert_allclose(inputs["logprobs"], [*[0.0] * before, *datum.inputs["sampling_logprobs"]])


async def test_a_batch_without_the_cap_is_trained_with_the_services_own(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    """An option whose value has no effect is not sent."""
    student, context = make_config(service, tmp_path, tiny_model).student, make_context()
    batch = complete_batch(ImportanceSampling(), make_scored_rollouts())
    student.declare(context)
    student.check(context)
    try:
        await student.open(context)
        await student.train(replace(batch, options={}))
    finally:
        await student.close()
    (sent,) = [request.body for request in service.requests if request.path.endswith("/forward_backward")]
    assert not sent["forward_backward_input"].get("loss_fn_config")  # type: ignore[index]  # JSON


def test_prompts_that_are_too_long_for_the_training_shape_are_found_in_the_check(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    rows = [{"messages": [{"role": "user", "content": "long " * 120}]}]
    with pytest.raises(InputError, match="512"):
        distillkit.run(make_config(service, tmp_path, tiny_model, rows=rows))
    assert not [request for request in service.requests if request.method == "POST"]


def test_a_teachers_own_model_needs_no_tokenizer_named(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    config = make_config(service, tmp_path, tiny_model, teachers=[{**teacher(service, TEACHER)}])
    assert config.teachers[0].tokenizer_model is None
    assert distillkit.run(config).steps == 2


def test_its_run_is_evaluated_and_asked_again_and_what_it_cannot_write_is_said(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [question(f"number {i}") for i in range(2)]
    held_out = write_rows(tmp_path, [question("held out")], "heldout.jsonl")
    config = make_config(service, tmp_path, tiny_model, rows=rows, data={"eval_path": held_out})
    result = distillkit.run(config)

    def call(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [words[0], str(result.run_dir), *words[1:]])
        assert done.exit_code == code, done.output
        return done.output

    call("eval", "--out", "e.json")
    found = json.loads(Path("e.json").read_text())["eval"]
    assert found["completions"] == result.eval["after"]["completions"]
    assert found["reverse_kl"] == pytest.approx(result.eval["after"]["reverse_kl"], abs=1e-3)
    assert "after step 1 (" in call("generate", "--rows", "1")
    message = call("export", "--merge", "merged", code=2)
    assert "student 'fireworks' (FireworksStudent) writes no weights as a whole model onto this machine" in message
    assert "where the weights are that the run ended with, says" in message
    assert "model/README.md" in "".join(message.split())
    assert not Path("merged").exists()
    assert nothing_is_left(service)
