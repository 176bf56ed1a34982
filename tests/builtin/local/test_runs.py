"""Whole runs of a real, tiny transformer on the CPU."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import question, read_jsonl
from helpers import tiny_models
from transformers import AutoModelForCausalLM

import distillkit
from distillkit import RunConfig
from distillkit.errors import InputError
from distillkit.positions import TokenLoss
from distillkit.testing import check_plugin, make_teacher
from distillkit_builtin.local.memory.reports import LIBRARIES
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.footprint import footprint
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

Make = Callable[..., RunConfig]
SCORER = {"name": "local", "dtype": "float32", "device": "cpu"}


def test_a_teacher_equal_to_the_student_gives_a_gap_of_zero_to_rounding(local_config: Make, tiny_model: str) -> None:
    # One step: AdamW takes steps of a fixed size in whatever direction rounding points, so a second would show a gap.
    result = distillkit.run(
        local_config(teachers=[{"model": tiny_model, "scorer": SCORER}], train={"prompt_groups_per_step": 8})
    )
    for record in read_jsonl(result.run_dir / "samples.jsonl"):
        theirs = record["teacher_logprobs"][tiny_model]
        assert record["student_logprobs"] == pytest.approx(theirs, abs=1e-4)
    (step,) = result.metrics
    assert abs(step["train/reverse_kl"]) < 1e-5
    assert abs(step["train/loss"]) < 1e-5


def test_in_bfloat16_that_gap_stays_within_rounding(local_config: Make, tiny_model: str) -> None:
    scorer = {**SCORER, "dtype": "bfloat16"}
    result = distillkit.run(
        local_config(teachers=[{"model": tiny_model, "scorer": scorer}], student={"dtype": "bfloat16"})
    )
    assert abs(result.metrics[0]["train/reverse_kl"]) < 0.1


@pytest.mark.parametrize(
    "student",
    [{"lora_rank": 16}, {"lora_rank": 0, "learning_rate": 0.01}, {"lora_rank": 16, "gradient_checkpointing": True}],
    ids=["lora", "all weights", "checkpointing"],
)
def test_the_student_gets_closer_to_its_teacher(
    local_config: Make, jsonl: Callable[..., str], student: dict[str, Any]
) -> None:
    held_out = jsonl([question(f"held out {i}") for i in range(48)], "heldout.jsonl")
    result = distillkit.run(
        local_config(
            student=student,
            data={"eval_path": held_out, "epochs": 40},
            sampling={"completions_per_prompt": 8},
            train={"prompt_groups_per_step": 8},
        )
    )
    # Of six seeds a LoRA comes to 0.57 to 0.67 of what it was, all weights to 0.42 to 0.56.
    assert result.eval["after"]["reverse_kl"] < 0.85 * result.eval["before"]["reverse_kl"]


def test_student_and_teachers_of_one_model_share_one_base(
    local_config: Make, tiny_model: str, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    original = CausalLM.load.__func__  # type: ignore[attr-defined]

    def counting(cls: type[CausalLM], source: str, *rest: Any) -> CausalLM:
        loaded.append(source)
        causal_lm: CausalLM = original(cls, source, *rest)
        return causal_lm

    monkeypatch.setattr(CausalLM, "load", classmethod(counting))
    rows = [question(f"q{i}", teacher="ab"[i % 2]) for i in range(4)]
    teachers = [{"model": tiny_model, "route_value": name, "scorer": SCORER} for name in "ab"]
    distillkit.run(local_config(teachers=teachers, data={"path": jsonl(rows)}))
    assert loaded == [tiny_model]


def test_a_privileged_prompt_reaches_the_teacher_and_never_the_student(
    local_config: Make, jsonl: Callable[..., str]
) -> None:
    secret = [{"role": "system", "content": "SECRET"}, {"role": "user", "content": "why"}]
    path = jsonl([question("why", teacher_messages=secret) for _ in range(4)])
    result = distillkit.run(local_config(data={"path": path}))
    for record in read_jsonl(result.run_dir / "samples.jsonl"):
        assert "SECRET" not in record["prompt"]
        assert all("SECRET" in prompt for prompt in record["teacher_prompts"].values())


class AbsoluteGap(ImportanceSampling):
    """A research loss, with code of its own."""

    name: ClassVar[str] = "absolute_gap"
    loss_function: ClassVar[str] = "absolute_gap"

    def options(self) -> Mapping[str, float]:
        return {}

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: -positions.logprobs * positions.inputs["advantages"].sign()


def test_a_loss_brings_its_own_function(local_config: Make) -> None:
    result = distillkit.run(local_config(loss=AbsoluteGap()))
    assert result.steps == 2
    assert result.metrics[-1]["train/grad_norm"] > 0


def test_what_is_not_there_is_said_before_anything_is_loaded(
    local_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CausalLM, "load", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(InputError, match=r"the config of '.*/nowhere' cannot be read: .*Give a local directory"):
        distillkit.run(local_config(student={"model": str(tmp_path / "nowhere")}))
    other = tmp_path / "swapped"
    tiny_models.write_model(other)
    tiny_models.write_tokenizer(other, swapped=True)
    with pytest.raises(InputError, match=r"cannot score the student's token ids: token 'a' is id \d+ in the student"):
        distillkit.run(local_config(teachers=[{"model": str(other), "scorer": SCORER}]))
    with pytest.raises(InputError, match="more than the 512 that the student reads"):
        distillkit.run(local_config(sampling={"max_completion_tokens": 500}))
    with pytest.raises(InputError, match=r"device 'cuda:7' cannot be used: .*Use auto, cpu"):
        distillkit.run(local_config(student={"device": "cuda:7"}))
    assert not (tmp_path / "runs").exists()


def test_check_knows_the_size_without_the_weights(tiny_model: str, local_config: Make) -> None:
    from distillkit import Registry
    from distillkit.preflight.prepared_run import prepare_run

    prepared = prepare_run(local_config(), Registry.discover(), print)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    count = sum(parameter.numel() for parameter in model.parameters())
    report = prepared.reports["student"]
    size = footprint(tiny_model, torch.device("cpu"), "float32")
    (fit,) = prepared.memory.fits
    assert fit.held("weights") == 2 * 4 * count + size.training_bytes(4) + LIBRARIES  # the teacher is another model
    assert report.notes == (
        f"student (LoRA of rank 4): {tiny_model}, {count:,} parameters, {4 * count / 1e6:.2f} MB as float32 on cpu",
        "student: the LoRA is on 14 linear layers (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj), "
        "3,712 numbers are trained",
    )


def test_the_local_plugins_keep_their_contracts(tiny_model: str) -> None:
    check_plugin(LocalStudent(model=tiny_model, dtype="float32", device="cpu"))
    check_plugin(LocalScorer(dtype="float32", device="cpu"), teachers=[make_teacher("t", model=tiny_model)])


def test_a_full_model_learns_at_its_own_default_rate(tiny_model: str) -> None:
    assert LocalStudent(model=tiny_model).learning_rate == 2e-4
    assert LocalStudent(model=tiny_model, lora_rank=0).learning_rate == 1e-5
    assert LocalStudent(model=tiny_model, lora_rank=0, learning_rate=0.1).learning_rate == 0.1


def test_the_summary_is_plain_json_and_adds_up(local_config: Make) -> None:
    result = distillkit.run(local_config())
    summary = json.loads((result.run_dir / "summary.json").read_text())
    assert summary["trained_completions"] + summary["failed_completions"] == summary["completions"] == 16
    assert summary["completion_tokens"] == sum(row["train/active_tokens"] for row in result.metrics)
