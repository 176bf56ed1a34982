"""Models with towers for pictures or sound: the language model in them is sampled, scored, trained and exported."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import question, read_jsonl
from helpers.tiny_wrappers import ARCHITECTURES, write_wrapper
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

import distillkit
from builtin.local.conftest import plain_logprobs
from builtin.local.training import sampled_batches
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit.testing import make_context
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.export.export import export
from distillkit_builtin.local.export.merged_export import WholeExport, write_whole_model
from distillkit_builtin.local.export.processor_files import PROCESSOR_FILES, copy_processor_files
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.sharding import full_tensor
from distillkit_builtin.local.model_files.model_class import auto_class, language_model, text_parameters
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer

Make = Callable[..., RunConfig]
OPTIMIZER = replace(sampled_batches.PLAIN, learning_rate=1e-3, total_steps=4)
PLAIN = {"dtype": "float32", "device": "cpu", "forward": "plain"}


def eager(folder: str | Path) -> PreTrainedModel:
    """As transformers loads it by its own class."""
    kind = auto_class(AutoConfig.from_pretrained(folder))
    model: PreTrainedModel = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


@pytest.mark.parametrize("kind", ["mistral3", "qwen2_5_vl", "gemma4", "llama4"])
def test_a_run_trains_the_language_model_and_leaves_the_towers(
    kind: str, local_config: Make, other_tiny_model: str, tmp_path: Path, jsonl: Callable[..., str]
) -> None:
    """Prompts of several lengths, some completions end by a stop; the reference is the class's own forward alone."""
    source = write_wrapper(tmp_path / kind, kind)
    held_out = jsonl([question("held out, and longer than others"), question("b")], "heldout.jsonl")
    result = distillkit.run(
        local_config(
            student={"model": source, "lora_rank": 0, "learning_rate": 0.002, **PLAIN},
            teachers=[{"model": other_tiny_model, "scorer": {"name": "local", **PLAIN}}],
            data={"eval_path": held_out},
            sampling={"stop": ("a", "e")},
        )
    )
    tokenizer, before, after = AutoTokenizer.from_pretrained(source), eager(source), eager(result.adapter_path)
    records = read_jsonl(result.run_dir / "samples.jsonl")
    for record in records[:3] + records[-2:]:
        model = before if record["policy_version"] == 0 else after
        if record["policy_version"] in (0, result.steps):
            item = PromptAndResponse(token_ids(tokenizer.encode(record["prompt"])), token_ids(record["token_ids"]))
            with torch.no_grad():
                theirs = plain_logprobs(language_model(model), item)
            np.testing.assert_allclose(record["student_logprobs"], theirs.numpy(), atol=1e-3)
    assert type(after).__name__ == ARCHITECTURES[kind]
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    trained = text_parameters(before).keys()
    assert all(torch.equal(old[name], new[name]) for name in old.keys() - trained)
    assert not torch.equal(*(model.get_input_embeddings().weight for model in (before, after)))


def test_no_tower_is_held_in_the_optimizer_and_a_checkpoint_goes_on_exactly(
    tmp_path: Path, load: Callable[..., CausalLM]
) -> None:
    source = write_wrapper(tmp_path / "model", "mistral3")
    policy = Policy.full(proved(load(source)))
    trainer = Trainer(policy, OPTIMIZER)
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in policy.causal_lm.model.named_parameters():
        tower = name.startswith(("model.vision", "model.multi_modal"))
        assert (id(parameter) in held) == parameter.requires_grad == (name in policy.trained) == (not tower)
    for parameter in policy.trained.values():
        parameter.grad = torch.ones_like(parameter)
    trainer.apply_gradient()
    (tmp_path / "saved").mkdir()
    trainer.save(tmp_path / "saved")
    assert not any("vision" in name for name in load_file(tmp_path / "saved" / "trainer.safetensors"))
    other = Trainer(Policy.full(load(source)), OPTIMIZER)
    other.load(tmp_path / "saved")
    mine, theirs = trainer.tensors(), other.tensors()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_check_says_that_towers_are_frozen(tmp_path: Path) -> None:
    source = write_wrapper(tmp_path, "llava")
    said = "are frozen: text never goes through them"
    whole = LocalStudent(model=source, device="cpu", lora_rank=0).check(make_context())
    assert any(said in note and "(0 M" not in note for note in whole.notes)
    text = LocalStudent(model=source, device="cpu").check(make_context())
    assert not any(said in note for note in text.notes)


@pytest.mark.parametrize(
    ("kind", "loaded_by"), [("llama4", "AutoModelForMultimodalLM"), ("gemma4", "AutoModelForCausalLM")]
)
@torch.no_grad()
def test_a_lora_is_merged_by_the_numbers_that_it_has_beside_the_model(
    kind: str, loaded_by: str, tmp_path: Path, load: Callable[..., CausalLM]
) -> None:
    """Also where the class of the whole model cannot be called with a text, as Llama 4's."""
    source, ids = write_wrapper(tmp_path / "base", kind), torch.arange(1, 30)[None]
    policy = Policy.lora(proved(load(source)), rank=4, alpha=8, dropout=0.0, seed=0)
    for parameter in policy.trained.values():
        parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    tokenizer = LocalStudent(model=source, device="cpu").tokenizer(make_context())
    exported = export(policy, tokenizer, tmp_path / "run", source)
    assert exported.problem is None
    write_whole_model(WholeExport(exported.path, source, "float32", tokenizer, ()), tmp_path / "whole")
    beside = language_model(policy.causal_lm.model)(input_ids=ids, use_cache=False).logits
    alone = language_model(eager(source))(input_ids=ids, use_cache=False).logits
    merged = language_model(eager(tmp_path / "whole"))(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(merged, beside, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(merged, alone, atol=1e-2)
    for folder in (exported.path, tmp_path / "whole"):
        assert f"import {loaded_by}\n" in (folder / "README.md").read_text()


@pytest.mark.usefixtures("one_rank")
def test_sharded_weights_of_a_wrapper_train_as_whole_ones(tmp_path: Path, load: Callable[..., CausalLM]) -> None:
    source = write_wrapper(tmp_path / "model", "mistral3")
    item = PromptAndResponse(token_ids(range(1, 8)), token_ids(range(9, 14)))
    whole, parts = (Policy.full(proved(load(source))) for _ in range(2))
    parts.shard(1)
    for policy in (whole, parts):
        policy.logprobs([item]).sum().backward()
    assert parts.trained.keys() == whole.trained.keys()
    for name, parameter in whole.trained.items():
        torch.testing.assert_close(full_tensor(parts.trained[name].grad), parameter.grad)
    assert parts.whole_weights().keys() == whole.whole_weights().keys()


def test_what_reads_pictures_goes_along_with_an_export(tmp_path: Path, tiny_model: str) -> None:
    source = tmp_path / "wrapper"
    write_wrapper(source, "mistral3")
    for name in PROCESSOR_FILES[:2]:
        (source / name).write_text(f'{{"of": "{name}"}}', encoding="utf-8")
    folder = tmp_path / "export"
    folder.mkdir()
    copy_processor_files(str(source), folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: (source / name).read_text() for name in PROCESSOR_FILES[:2]
    }
    plain = tmp_path / "plain"
    shutil.copytree(tiny_model, plain)
    (plain / PROCESSOR_FILES[0]).write_text("{}", encoding="utf-8")
    other = tmp_path / "other"
    other.mkdir()
    copy_processor_files(str(plain), other)  # left over there
    assert not list(other.iterdir())
