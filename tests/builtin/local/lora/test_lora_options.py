"""`student.target_modules` and `student.experts` in whole runs: checked, trained, sampled, gone on from, merged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import read_jsonl
from helpers.model_families import LAYERED, random_model
from helpers.tiny_models import write_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import distillkit
from builtin.local.conftest import plain_logprobs
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.testing import make_context
from distillkit_builtin.local.export.merged_export import WholeExport, write_whole_model
from distillkit_builtin.local.lora.lora_placement import planned_targets
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.model.footprint import footprint
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.local.training.trainable_adapter import lora_size
from distillkit_builtin.vllm.sampler import VllmSampler

pytestmark = pytest.mark.filterwarnings("ignore")
Make = Callable[..., RunConfig]
MANY = {"lora_rank": 4, "learning_rate": 0.05, "device": "cpu", "dtype": "float32"}


def written(folder: Path, kind: str) -> str:
    """A model of the family, with tokenizer; returns the directory."""
    random_model(kind, **LAYERED.get(kind, {})).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.fixture
def mixture(tmp_path: Path) -> str:
    return written(tmp_path / "base", "qwen3_moe")


def student(model: str, **options: Any) -> LocalStudent:
    return LocalStudent(model=model, **{**MANY, **options})


def notes(model: str, **options: Any) -> str:
    return "\n".join(student(model, **options).check(make_context()).notes)


def test_check_says_what_the_lora_is_on(mixture: str) -> None:
    every = "the LoRA is on 11 linear layers (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj)"
    assert f"student: {every}, 2,752 numbers are trained; experts and router are frozen" in notes(mixture)
    experts = "2 tensors of experts (gate_up_proj, down_proj), 4,544 numbers are trained; router is frozen"
    assert f"{every} and {experts}" in notes(mixture, experts=True)
    assert "on 2 linear layers (q_proj), 512 numbers are trained" in notes(mixture, target_modules=["q_proj"])


WRONG = [
    ({"target_modules": ["qproj"]}, "did you mean q_proj"),
    ({"target_modules": ["gate"]}, r"is called 'gate' \(it is .* routers are not"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_check_refuses_what_cannot_be_adapted(mixture: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        student(mixture, **options).check(make_context())


def test_experts_are_not_adapted_for_a_server_that_samples(mixture: str) -> None:
    served = student(mixture, experts=True, sampler=VllmSampler(base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(InputError, match=r"student.experts: servers do not load .* leave student.sampler out"):
        served.check(make_context())


CONTRADICTIONS = [
    ({"experts": True, "lora_dropout": 0.1}, "with experts take lora_dropout: 0"),
    ({"experts": True, "lora_rank": 0}, "lora_rank: 0 trains all weights; leave it out"),
    ({"target_modules": ["q_proj"], "lora_rank": 0}, "lora_rank: 0 trains all weights; leave it out"),
    ({"target_modules": []}, "target_modules"),
]


@pytest.mark.parametrize(("options", "message"), CONTRADICTIONS)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalStudent(model="x", **options)


WRITTEN = [("all-linear", "[q_proj,v_proj]"), ("o_proj", "[o_proj]"), ("o_proj,mlp.up", "[o_proj,mlp.up]")]


@pytest.mark.parametrize(("given", "written"), WRITTEN)
def test_one_text_is_no_list_of_layers_and_what_is_all_of_them_is_said(given: str, written: str) -> None:
    with pytest.raises(ValueError, match="a list of names") as caught:
        LocalStudent(model="x", target_modules=given)  # type: ignore[arg-type]
    assert f"student.target_modules={written}" in str(caught.value)
    assert "leave it out (null) for all linear layers of the text decoder" in str(caught.value)


@pytest.mark.parametrize("options", [{"experts": True}, {"target_modules": ["q_proj", "gate_proj"]}], ids=str)
def test_completions_before_the_first_sync_are_the_bases(
    mixture: str, local_config: Make, options: dict[str, Any]
) -> None:
    train = {"prompt_groups_per_step": 1, "max_steps": 6, "weight_sync_interval": 3}
    config = local_config(student={"model": mixture, **MANY, **options}, train=train)
    result = distillkit.run(config)
    records = read_jsonl(result.run_dir / "samples.jsonl")
    base = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(mixture)
    assert {record["policy_version"] for record in records} == {0, 3}
    with torch.no_grad():
        for record in records:
            prompt = token_ids(tokenizer.encode(record["prompt"]))
            given = plain_logprobs(base, PromptAndResponse(prompt, token_ids(record["token_ids"])))
            is_base = torch.allclose(torch.tensor(record["student_logprobs"]), given, atol=1e-4)
            assert is_base == (record["policy_version"] == 0)
    tensors = load_file(result.adapter_path / "adapter_model.safetensors")
    assert any(".experts." in name for name in tensors) == ("experts" in options)


@pytest.mark.parametrize("experts", [False, True])
def test_training_goes_on_from_an_exported_adapter_and_it_is_merged(
    mixture: str, local_config: Make, experts: bool, tmp_path: Path
) -> None:
    options = {"model": mixture, **MANY, "experts": experts}
    train = {"prompt_groups_per_step": 1, "max_steps": 2}
    first = distillkit.run(local_config(name="one", student=options, train=train))
    onward = {**options, "adapter": str(first.adapter_path)}
    second = distillkit.run(local_config(name="two", student=onward, train=train))
    base = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32)
    start = PeftModel.from_pretrained(base, str(first.adapter_path)).eval()
    record = read_jsonl(second.run_dir / "samples.jsonl")[0]
    prompt = token_ids(AutoTokenizer.from_pretrained(mixture).encode(record["prompt"]))
    item = PromptAndResponse(prompt, token_ids(record["token_ids"]))
    with torch.no_grad():
        assert record["student_logprobs"] == pytest.approx(plain_logprobs(start, item).tolist(), abs=1e-4)
        before, after = (load_file(r.adapter_path / "adapter_model.safetensors") for r in (first, second))
        assert {n: t.shape for n, t in before.items()} == {n: t.shape for n, t in after.items()}
        tokenizer = student(mixture).tokenizer(make_context())
        write_whole_model(WholeExport(second.adapter_path, mixture, "float32", tokenizer, ()), tmp_path / "whole")
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32).eval()
        fresh = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32)
        beside = PeftModel.from_pretrained(fresh, str(second.adapter_path)).eval()
        torch.testing.assert_close(plain_logprobs(whole, item), plain_logprobs(beside, item), atol=1e-4, rtol=1e-4)


def adapter_of(folder: Path, model: str, **options: Any) -> str:
    """One that PEFT made by itself."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options))
    adapted.save_pretrained(str(folder))
    return str(folder)


EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
STARTS = [
    ({"target_modules": "all-linear"}, {"experts": True}, r"changes more than linear layers .*mlp\.gate"),
    ({"target_modules": ["q_proj"], "target_parameters": EXPERTS}, {}, r"adapts experts.* take student.experts: true"),
    ({"target_modules": ["q_proj"]}, {"experts": True}, r"adapts no experts.* take student.experts: false"),
    (
        {"target_modules": ["q_proj"]},
        {"target_modules": ["k_proj"]},
        r"names other layers than the adapter .* leave it",
    ),
    ({"target_modules": ["q_proj"], "target_parameters": EXPERTS}, {"experts": True}, None),
    ({"target_modules": ["q_proj"]}, {"target_modules": ["q_proj"]}, None),
]


@pytest.mark.parametrize(("made", "options", "message"), STARTS)
def test_an_adapter_of_others_is_gone_on_from_or_refused(
    mixture: str, tmp_path: Path, made: dict[str, Any], options: dict[str, Any], message: str | None
) -> None:
    adapter = adapter_of(tmp_path / "start", mixture, **made)
    start = LocalStudent(model=mixture, adapter=adapter, device="cpu", lora_rank=4, lora_alpha=8, **options)
    if message is None:
        size = lora_size(start)
        assert size is not None
        assert f"the LoRA of {adapter} has {size.trained:,} numbers" in "\n".join(start.check(make_context()).notes)
        return
    with pytest.raises(InputError, match=message):
        start.check(make_context())


@pytest.mark.parametrize("experts", [False, True])
def test_the_memory_of_a_student_counts_what_is_adapted_and_merged(mixture: str, experts: bool) -> None:
    size = lora_size(student(mixture, experts=experts))
    assert size is not None
    held = footprint(mixture, torch.device("cpu"), "float32")
    merged = held.training_bytes(4, lora=size) - held.training_bytes(4, lora=size, samples=False)
    assert held.training_bytes(4, samples=False, lora=size) == 16 * size.trained
    model = random_model("qwen3_moe", **LAYERED["qwen3_moe"])
    targets = planned_targets(model.config, experts=experts)
    names = [*(f"{name}.weight" for name in targets.linears), *targets.experts]
    assert merged == sum(model.get_parameter(name).nbytes for name in names)
