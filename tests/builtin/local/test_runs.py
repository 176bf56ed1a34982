"""Whole runs of a real, tiny transformer on the CPU."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import question, read_jsonl
from helpers import tiny_models
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import distillkit
from builtin.local.conftest import plain_logprobs
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.positions import TokenLoss
from distillkit.testing import check_plugin, make_teacher
from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.footprint import footprint
from distillkit_builtin.local.memory.reports import LIBRARIES
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

Make = Callable[..., RunConfig]
SCORER = {"name": "local", "dtype": "float32", "device": "cpu"}


def numbers(result: distillkit.RunResult) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in result.metrics]


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


def test_two_runs_of_one_config_are_the_same_to_the_bit(local_config: Make) -> None:
    first, second = (distillkit.run(local_config(name=name)) for name in ("one", "two"))
    assert numbers(first) == numbers(second)
    weights = [(result.adapter_path / "adapter_model.safetensors").read_bytes() for result in (first, second)]
    assert weights[0] == weights[1]


def test_a_resumed_run_equals_one_that_was_never_interrupted(local_config: Make) -> None:
    whole = distillkit.run(local_config(name="whole", data={"epochs": 2}))
    distillkit.run(local_config(name="parts", data={"epochs": 2}, train={"max_steps": 2}))
    resumed = distillkit.run(local_config(name="parts", data={"epochs": 2}), resume=True)
    assert numbers(resumed)[-2:] == numbers(whole)[-2:]
    weights = [(result.adapter_path / "adapter_model.safetensors").read_bytes() for result in (whole, resumed)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_with_more_steps_a_resumed_run_has_the_rates_of_the_new_plan_from_its_first_step(
    local_config: Make, schedule: str
) -> None:
    def config(name: str, epochs: int, **train: int) -> RunConfig:
        return local_config(name=name, data={"epochs": epochs}, student={"lr_schedule": schedule}, train=train)

    def rates(result: distillkit.RunResult) -> list[float]:
        return [row["train/learning_rate"] for row in result.metrics]

    whole = distillkit.run(config("whole", 2, prompt_groups_per_step=4))
    distillkit.run(config("parts", 1, prompt_groups_per_step=4))  # two steps, the second at half the rate
    more = distillkit.run(config("parts", 2, prompt_groups_per_step=4), resume=True)
    assert (
        rates(more)[2:] == rates(whole)[2:] == pytest.approx([0.01, 0.005 if schedule == "linear" else 0.00293], 0.01)
    )
    log = (more.run_dir / "run.log").read_text()
    assert log.count("was to have 2 optimizer steps when it was saved, and has 4 now: the learning rates of the ") == 1


def test_the_rates_follow_the_steps_that_there_are_though_one_was_not_full(local_config: Make) -> None:
    def config(epochs: int) -> RunConfig:
        train = {"prompt_groups_per_step": 5, "num_substeps": 2}
        return local_config(data={"epochs": epochs}, student={"lr_schedule": "linear"}, train=train)

    distillkit.run(config(1))  # of 5 and 3 rows
    more = distillkit.run(config(2), resume=True)  # two more: 8 optimizer steps in all
    assert [row["train/learning_rate"] for row in more.metrics[2:]] == pytest.approx(
        [0.02 * (3.5 / 8), 0.02 * (1.5 / 8)]  # the means of two optimizer steps
    )


def test_a_resume_of_the_same_plan_says_nothing_of_rates(local_config: Make) -> None:
    config = local_config(student={"lr_schedule": "linear"}, train={"prompt_groups_per_step": 4, "save_every": 1})
    folder = distillkit.run(config).run_dir
    (folder / "summary.json").unlink()  # as if it had been killed just before its end
    distillkit.run(config, resume=True)
    assert "learning rates" not in (folder / "run.log").read_text()


def retrained(model: Path) -> None:
    """Move the weights in place, by as little as training does."""
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})


def test_another_number_format_on_another_machine_is_another_run(
    local_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(steps: int) -> RunConfig:
        student = {"name": "local", "model": local_config().student.model, "device": "cpu", "dtype": "auto"}
        return local_config(student=student, train={"max_steps": steps})

    def this_cpu(*, fast: bool) -> None:
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: fast)

    this_cpu(fast=False)
    distillkit.run(config(1))
    this_cpu(fast=True)
    with pytest.raises(InputError, match='the number format of student was "float32", is "bfloat16"'):
        distillkit.run(config(2), resume=True)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_model_whose_weights_changed_under_its_name_is_another_run_and_a_copy_is_not(
    local_config: Make, tiny_model: str, other_tiny_model: str, tmp_path: Path, who: str
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny_model if who == "student" else other_tiny_model, mine)

    def config(epochs: int) -> RunConfig:
        teachers = [{"model": str(mine), "route_value": "t", "scorer": SCORER}]
        over = {"student": {"model": str(mine)}} if who == "student" else {"teachers": teachers}
        return local_config(data={"epochs": epochs}, **over)

    distillkit.run(config(1))
    shutil.move(mine, tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", mine, copy_function=shutil.copyfile)  # with other times
    distillkit.run(config(2), resume=True)
    retrained(mine)
    with pytest.raises(InputError) as caught:
        distillkit.run(config(3), resume=True)
    name = "student" if who == "student" else "teacher 't'"
    assert str(caught.value).splitlines()[1:-1] == [f"  the weights of {name} changed"]


def test_the_adapter_loads_with_peft_and_is_the_policy_that_was_evaluated(
    local_config: Make, tiny_model: str, jsonl: Callable[..., str]
) -> None:
    held_out = jsonl([question("held out")], "heldout.jsonl")
    result = distillkit.run(local_config(data={"eval_path": held_out, "epochs": 3}))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(result.adapter_path))
    assert AutoTokenizer.from_pretrained(result.adapter_path).chat_template == tiny_models.CHATML
    record = next(r for r in read_jsonl(result.run_dir / "samples.jsonl")[::-1] if r["split"] == "heldout")
    prompt = AutoTokenizer.from_pretrained(result.adapter_path).encode(record["prompt"])
    with torch.no_grad():
        theirs = plain_logprobs(model, PromptAndResponse(token_ids(prompt), token_ids(record["token_ids"])))
    assert record["policy_version"] == result.steps
    np.testing.assert_allclose(record["student_logprobs"], theirs.numpy(), atol=1e-3)


def test_the_model_card_names_what_ended_completions_and_is_no_end_of_the_model(
    local_config: Callable[..., RunConfig], tiny_model: str
) -> None:
    def card(**over: Any) -> str:
        result = distillkit.run(local_config(train={"max_steps": 1}, **over))
        return (result.adapter_path / "README.md").read_text()

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    own, letter = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("a")
    assert "also ended" not in card(name="own", sampling={"stop_ids": (own,)})
    said = card(name="other", sampling={"stop_ids": (letter,)})
    assert f"In training completions also ended at `a` (id {letter}), none of the model's own ends" in said
    assert f"`stop_token_ids: [{letter}]`" in said


def test_the_model_card_names_the_base_and_no_directory_of_this_machine(
    local_config: Make, tiny_model: str, tmp_path: Path
) -> None:
    card = (distillkit.run(local_config()).adapter_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\n")  # the hub refuses a directory as base_model
    name = Path(tiny_model).name
    assert f"# {name}, distilled on-policy\n\n{name} trained by" in card
    assert f'from_pretrained("path/to/{name}"), "path/to/adapter")' in card
    assert str(Path(tiny_model).parent) not in card
    known = tmp_path / "known"
    shutil.copytree(tiny_model, known)
    (known / "PROVENANCE.json").write_text('{"model": "org/name"}', encoding="utf-8")
    result = distillkit.run(local_config(name="known", student={"model": str(known), "lora_rank": 0}))
    card = (result.adapter_path / "README.md").read_text()
    assert card.startswith("---\nbase_model: org/name\nlibrary_name: transformers\n")
    assert str(tmp_path) not in card
    result = distillkit.run(local_config(name="adapter", student={"model": str(known)}))
    assert 'from_pretrained("org/name")' in (result.adapter_path / "README.md").read_text()


def test_all_weights_end_up_in_a_whole_model(local_config: Make, tiny_model: str) -> None:
    result = distillkit.run(local_config(student={"lora_rank": 0}, data={"epochs": 2}))
    assert result.adapter_path.name == "model"
    model = AutoModelForCausalLM.from_pretrained(result.adapter_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not torch.equal(model.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert (result.adapter_path / "tokenizer.json").is_file()


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
        f"student (LoRA of rank 4): {tiny_model}, {count / 1e6:,.0f} M parameters, {4 * count / 1e9:.2f} GB as "
        "float32 on cpu",
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
