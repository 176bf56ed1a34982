"""`student.adapter`: training goes on from a LoRA, and the teacher on the same base stays the bare base."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import read_jsonl
from helpers import tiny_adapters, tiny_models
from helpers.model_families import write_quantized
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import distillkit
from builtin.local.conftest import plain_logprobs
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit.errors import ConfigError, InputError
from distillkit.testing import make_context
from distillkit_builtin.local.lora.starting_adapter import read_starting_adapter
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.student import LocalStudent

Make = Callable[..., RunConfig]
SCORER = {"name": "local", "dtype": "float32", "device": "cpu"}


@pytest.fixture
def adapter(tiny_model: str, tmp_path: Path) -> Path:
    """Of other layers, rank and scaling than a new one has."""
    return tiny_adapters.write_adapter(
        tmp_path / "sft", tiny_model, r=3, use_rslora=True, target_modules=["q_proj", "down_proj"], lora_dropout=0.5
    )


@pytest.fixture
def going_on(local_config: Make, tiny_model: str, adapter: Path) -> Make:
    """A config that trains on from the adapter, towards the bare base."""

    def make(**over: Any) -> RunConfig:
        student = {"name": "local", "model": tiny_model, "adapter": str(adapter), "dtype": "float32", "device": "cpu"}
        config = local_config(teachers=[{"model": tiny_model, "scorer": SCORER}], **over)
        fields = {name: getattr(config, name) for name in ("name", "log_path", "data", "sampling", "train", "sinks")}
        teachers = [{"model": tiny_model, "scorer": SCORER}]
        return RunConfig(**fields, teachers=teachers, student={**student, "learning_rate": 0.02})

    return make


def base(source: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    return model


def logprobs(model: torch.nn.Module, record: dict[str, Any], source: str) -> list[float]:
    """Of a record in samples.jsonl, by the model's own forward."""
    prompt = AutoTokenizer.from_pretrained(source).encode(record["prompt"])
    with torch.no_grad():
        return plain_logprobs(model, PromptAndResponse(token_ids(prompt), token_ids(record["token_ids"]))).tolist()


def test_it_starts_from_the_adapter_trains_it_and_the_teacher_stays_the_bare_base(
    going_on: Make, tiny_model: str, adapter: Path
) -> None:
    result = distillkit.run(going_on())
    start = PeftModel.from_pretrained(base(tiny_model), str(adapter)).eval()
    first = [r for r in read_jsonl(result.run_dir / "samples.jsonl") if r["policy_version"] == 0]
    for record in first:  # which are rounded to five decimals
        assert record["student_logprobs"] == pytest.approx(logprobs(start, record, tiny_model), abs=2e-5)
        teacher = record["teacher_logprobs"][tiny_model]
        assert teacher == pytest.approx(logprobs(base(tiny_model), record, tiny_model), abs=2e-5)
        assert teacher != pytest.approx(record["student_logprobs"], abs=0.1)
    before, after = (
        load_file(adapter / "adapter_model.safetensors"),
        load_file(result.adapter_path / "adapter_model.safetensors"),
    )
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    assert all((after[name] - tensor).abs().max() > 1e-3 for name, tensor in before.items())


def test_what_it_exports_is_what_it_was_evaluated_with(
    going_on: Make, tiny_model: str, jsonl: Callable[..., str]
) -> None:
    held_out = jsonl([{"messages": [{"role": "user", "content": "held out"}]}], "heldout.jsonl")
    result = distillkit.run(going_on(data={"eval_path": held_out}))
    trained = PeftModel.from_pretrained(base(tiny_model), str(result.adapter_path)).eval()
    record = next(r for r in read_jsonl(result.run_dir / "samples.jsonl")[::-1] if r["split"] == "heldout")
    assert record["policy_version"] == result.steps
    assert record["student_logprobs"] == pytest.approx(logprobs(trained, record, tiny_model), abs=1e-4)


def test_it_is_resumed_to_the_bit_and_not_with_another_adapter(going_on: Make, adapter: Path) -> None:
    whole = distillkit.run(going_on(name="whole", data={"epochs": 2}))
    distillkit.run(going_on(name="parts", data={"epochs": 2}, train={"max_steps": 2}))
    resumed = distillkit.run(going_on(name="parts", data={"epochs": 2}), resume=True)
    weights = [(result.adapter_path / "adapter_model.safetensors").read_bytes() for result in (whole, resumed)]
    assert weights[0] == weights[1]
    tiny_adapters.change_tensors(adapter, lambda tensors: {name: tensor + 1e-3 for name, tensor in tensors.items()})
    with pytest.raises(InputError, match="the starting adapter of student changed"):
        distillkit.run(going_on(name="parts", data={"epochs": 3}), resume=True)


def test_its_own_output_is_a_start_and_a_teacher(going_on: Make, local_config: Make, tiny_model: str) -> None:
    made = distillkit.run(going_on(name="one")).adapter_path
    teacher = {"model": str(made), "route_value": "t", "scorer": SCORER}
    student = {"adapter": str(made), "lora_rank": 16, "lora_alpha": 32}
    # The merged teacher and the student that is not merged are one model.
    result = distillkit.run(local_config(name="two", student=student, teachers=[teacher], train={"max_steps": 1}))
    assert result.metrics[0]["train/reverse_kl"] == pytest.approx(0, abs=1e-5)


def test_a_new_lora_on_a_merged_model_brings_its_base(local_config: Make, tiny_model: str, adapter: Path) -> None:
    result = distillkit.run(local_config(student={"model": str(adapter)}))
    merged = PeftModel.from_pretrained(base(tiny_model), str(adapter)).merge_and_unload().state_dict()
    written = load_file(result.run_dir / "base" / "model.safetensors")
    assert all(torch.equal(tensor, merged[name]) for name, tensor in written.items())
    config = (result.adapter_path / "adapter_config.json").read_text()
    assert str((result.run_dir / "base").resolve()) in config
    card = (result.adapter_path / "README.md").read_text()
    assert 'from_pretrained("path/to/base"), "path/to/adapter")' in card
    merged = f"{Path(tiny_model).name} with the adapter `sft` merged into it"
    assert f"{merged}, trained by" in card
    assert f"the model in `base/`, which the run wrote beside `adapter/`: {merged}." in card


CHOICES = [
    ({"lora_rank": 8}, "student.lora_rank is 8, and that of the adapter .* is 3; leave it out"),
    ({"lora_rank": 0}, "student.lora_rank is 0, and that of the adapter .* is 3"),
    ({"lora_alpha": 7}, "student.lora_alpha is 7, and that of the adapter .* is 8"),
]


@pytest.mark.parametrize(("options", "message"), CHOICES)
def test_another_rank_than_the_adapters_is_refused(
    tiny_model: str, adapter: Path, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        LocalStudent(model=tiny_model, adapter=str(adapter), device="cpu", **options).check(make_context())


@pytest.mark.parametrize("kind", ["dora", "embeddings", "saved head", "bias"])
def test_what_is_more_than_a_lora_below_the_head_is_merged_or_refused(
    tiny_model: str, tmp_path: Path, kind: str
) -> None:
    folder = tiny_adapters.write_adapter(tmp_path / "more", tiny_model, **tiny_adapters.KINDS[kind])
    with pytest.raises(InputError, match=r"cannot be trained on; give it as student.model, which merges it"):
        LocalStudent(model=tiny_model, adapter=str(folder), device="cpu").check(make_context())


@pytest.mark.filterwarnings("ignore")
def test_it_goes_on_on_a_base_in_4_bits(local_config: Make, tmp_path: Path) -> None:
    source = write_quantized(tmp_path / "base", load_in_4bit=True)
    first = distillkit.run(local_config(name="first", student={"model": source}))
    student = {"model": source, "adapter": str(first.adapter_path), "lora_rank": 16, "lora_alpha": 32}
    teachers = [{"model": source, "scorer": SCORER}]
    result = distillkit.run(local_config(name="second", student=student, teachers=teachers))
    start = PeftModel.from_pretrained(base(source), str(first.adapter_path)).eval()
    for record in read_jsonl(result.run_dir / "samples.jsonl"):
        if record["policy_version"] == 0:
            assert record["student_logprobs"] == pytest.approx(logprobs(start, record, source), abs=2e-5)
    assert result.metrics[0]["train/reverse_kl"] != pytest.approx(0, abs=1e-3)  # the teacher is the bare base


def test_an_adapter_on_the_head_is_refused(tmp_path: Path) -> None:
    model = tiny_models.write_model(tmp_path / "base", family="qwen3")
    folder = tiny_adapters.write_adapter(tmp_path / "head", model, target_modules=["lm_head", "q_proj"])
    with pytest.raises(InputError, match=r"changes more than linear layers below the head \(lm_head\)"):
        LocalStudent(model=model, adapter=str(folder), device="cpu").check(make_context())


def test_an_adapter_of_another_model_is_refused_and_of_a_copy_is_not(
    tiny_model: str, other_tiny_model: str, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"was trained on {tiny_model}, and student.model is {other_tiny_model}"):
        read_starting_adapter(str(adapter), other_tiny_model, {})
    shutil.copytree(tiny_model, tmp_path / "copy")
    assert read_starting_adapter(str(adapter), str(tmp_path / "copy"), {}).note is None
    tiny_adapters.change_config(adapter, base_model_name_or_path="org/base")
    assert "is taken for the same model" in str(read_starting_adapter(str(adapter), tiny_model, {}).note)
    assert read_starting_adapter(str(adapter), "org/base", {}).note is None
    with pytest.raises(InputError, match=r"was trained on org/base, and student.model is org/other"):
        read_starting_adapter(str(adapter), "org/other", {})
    tiny_adapters.change_config(adapter, base_model_name_or_path="/gone/base")
    assert "/gone/base, which is not here" in str(read_starting_adapter(str(adapter), tiny_model, {}).note)


def test_it_needs_a_model_and_a_directory(tiny_model: str) -> None:
    with pytest.raises(ConfigError, match="adapter needs `model` beside it"):
        RunConfig(student={"name": "local", "adapter": "x"}, teachers=[{"model": "t"}], data={"path": "x"})
    with pytest.raises(InputError, match=r"student.adapter: .* is no directory of a PEFT adapter"):
        LocalStudent(model=tiny_model, adapter=tiny_model, device="cpu").check(make_context())
