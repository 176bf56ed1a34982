"""What a run of the local backend leaves: an adapter or a whole model that others load, and its card."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import question, read_jsonl
from helpers import tiny_models
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import distillkit
from builtin.local.conftest import plain_logprobs
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit_builtin.local.model.causal_lm import PromptAndResponse

Make = Callable[..., RunConfig]


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
