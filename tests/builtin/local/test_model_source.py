"""What a model's name stands for: one thing, wherever it stands."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_adapters, tiny_models
from peft import PeftModel
from transformers import AutoModelForCausalLM

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.testing import make_context, make_teacher
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.footprint import footprint
from distillkit_builtin.local.model_files.fingerprint import model_fingerprint
from distillkit_builtin.local.model_files.model_config import context_length
from distillkit_builtin.local.requirements import local_report
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.model_source import ModelSource, resolve_model, tokenizer_source

Load = Callable[..., CausalLM]
ITEM = PromptAndResponse(token_ids(range(5, 15)), token_ids(range(50, 60)))


@pytest.fixture
def adapter(tiny_model: str, tmp_path: Path) -> Path:
    return tiny_adapters.write_adapter(tmp_path / "adapter", tiny_model)


@pytest.fixture
def beside(tiny_model: str, adapter: Path, tmp_path: Path) -> Path:
    """A directory with the whole model and the adapter."""
    folder = tmp_path / "beside"
    shutil.copytree(tiny_model, folder)
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    return folder


def merged(base: str, *adapters: Path) -> torch.nn.Module:
    """What PEFT itself makes of them, in float32."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    for folder in adapters:
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    merged_model: torch.nn.Module = model.eval()
    return merged_model


def test_a_whole_model_an_adapter_and_both_in_one_directory(tiny_model: str, adapter: Path, beside: Path) -> None:
    assert resolve_model(tiny_model) == ModelSource(tiny_model)
    assert resolve_model(str(adapter)) == ModelSource(tiny_model, (adapter,))
    assert resolve_model(str(beside)) == ModelSource(str(beside), (beside,))
    (beside / "model.safetensors").unlink()  # the base's config beside an adapter, as some tools leave it
    assert resolve_model(str(beside)) == ModelSource(tiny_model, (beside,))
    assert resolve_model("org/name") == ModelSource("org/name")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "rslora", "dora", "embeddings", "saved head", "bias", "some layers"])
def test_an_adapter_is_its_base_with_it_merged_in(tmp_path: Path, load: Load, kind: str) -> None:
    base = tiny_models.write_model(tmp_path / "base", family="qwen2")  # with biases, and a head of its own
    folder = tiny_adapters.write_adapter(tmp_path / "adapter", base, **tiny_adapters.KINDS[kind])
    expected = plain_logprobs(merged(base, folder), ITEM)
    assert (expected - plain_logprobs(merged(base), ITEM)).abs().max() > 0.1
    torch.testing.assert_close(load(str(folder)).response_logprobs([ITEM]), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_adapters_of_adapters_are_merged_in_order(tiny_model: str, adapter: Path, tmp_path: Path, load: Load) -> None:
    second = tiny_adapters.write_adapter(tmp_path / "second", tiny_model, seed=1, base_name=str(adapter))
    assert resolve_model(str(second)) == ModelSource(tiny_model, (adapter, second))
    expected = plain_logprobs(merged(tiny_model, adapter, second), ITEM)
    torch.testing.assert_close(load(str(second)).response_logprobs([ITEM]), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_weights_beside_an_adapter_are_the_merged_model_too(
    tiny_model: str, adapter: Path, beside: Path, load: Load
) -> None:
    causal_lm = load(str(beside))
    expected = plain_logprobs(merged(tiny_model, adapter), ITEM)
    torch.testing.assert_close(causal_lm.response_logprobs([ITEM]), expected, atol=1e-5, rtol=1e-5)
    assert not any("lora" in name for name, _ in causal_lm.model.named_modules())
    tiny_adapters.change_tensors(
        beside, lambda t: {n: x for n, x in t.items() if "0.mlp.up" not in n}, "model.safetensors"
    )
    with pytest.raises(InputError, match=r"are missing \(model.layers.0.mlp.up_proj.weight\)"):  # of the base, below it
        load(str(beside))


def test_it_is_merged_in_float32_and_then_rounded_once(tiny_model: str, adapter: Path, load: Load) -> None:
    exact = merged(tiny_model, adapter).state_dict()
    found = load(str(adapter), torch.bfloat16).model.state_dict()
    assert found.keys() == exact.keys()
    assert all(torch.equal(found[name], tensor.to(torch.bfloat16)) for name, tensor in exact.items())
    rotary = load(str(adapter), torch.bfloat16).model.model.rotary_emb
    assert rotary.inv_freq.dtype == torch.float32  # computed, not loaded: bfloat16 would move every angle


def test_everything_that_reads_a_model_reads_the_same_one(tiny_model: str, adapter: Path, beside: Path) -> None:
    bare = model_fingerprint(tiny_model)
    for name in (str(adapter), str(beside)):
        digests = model_fingerprint(name)
        assert {key: digests[key] for key in bare} == bare
        assert digests["merged adapter 1"]
        assert context_length(name) == 512
        report = local_report(name, "x", "cpu", "float32", run=make_context("x"))
        sizes = [footprint(each, torch.device("cpu"), "float32").weight_bytes for each in (name, tiny_model)]
        assert sizes[0] == sizes[1]
        assert f"with the adapter {name} merged into it" in report.notes[0]
    assert tokenizer_source(str(adapter)) == tiny_model
    tiny_models.write_tokenizer(adapter)
    assert tokenizer_source(str(adapter)) == str(adapter)
    run = make_context("student")
    tokenizer = LocalStudent(model=str(adapter), device="cpu").tokenizer(run)
    assert isinstance(tokenizer, HFTokenizer)
    assert tokenizer.source == str(adapter)


def test_a_fingerprint_is_of_the_adapters_content_and_not_of_where_its_base_is(
    tiny_model: str, adapter: Path, tmp_path: Path
) -> None:
    moved, before = tmp_path / "moved", model_fingerprint(str(adapter))
    shutil.copytree(tiny_model, moved)
    tiny_adapters.change_config(adapter, base_model_name_or_path=str(moved))
    config = json.loads((adapter / "adapter_config.json").read_text())
    tiny_adapters.change_config(adapter, target_modules=config["target_modules"][::-1])  # PEFT writes a set
    assert model_fingerprint(str(adapter)) == before
    tiny_adapters.change_config(adapter, lora_alpha=9)
    after = model_fingerprint(str(adapter))
    assert [name for name in before if after[name] != before[name]] == ["merged adapter 1"]
    tiny_adapters.change_tensors(adapter, lambda tensors: {name: 2 * tensor for name, tensor in tensors.items()})
    assert model_fingerprint(str(adapter))["merged adapter 1"] not in (
        before["merged adapter 1"],
        after["merged adapter 1"],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model_name_or_path": None}, "does not say what model the adapter is for"),
        ({"base_model_name_or_path": "/gone/base"}, "is for the model '/gone/base', which does not exist here"),
        ({"revision": "v2"}, "names revision 'v2' of .* download that revision"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}, "is a PROMPT_TUNING, which cannot be merged"),
        ({"peft_type": "NOSUCH"}, "cannot be used: KeyError: 'NOSUCH'"),
        ({"r": 8}, "size mismatch"),
        ({"alora_invocation_tokens": [3]}, "is a LoRA that tokens activate .*, which cannot be merged"),
        ({"a_future_option": True}, "keys that the installed PEFT does not know .*: a_future_option"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_adapter_that_cannot_be_what_it_says_is_refused_by_check(
    adapter: Path, change: dict[str, Any], message: str
) -> None:
    tiny_adapters.change_config(adapter, **change)
    for plugin in (
        LocalStudent(model=str(adapter), device="cpu"),
        LocalScorer(device="cpu").bind(make_teacher(model=str(adapter))),
    ):
        with pytest.raises(InputError, match=message):
            plugin.check(make_context())


def test_an_adapter_of_itself_is_no_model(adapter: Path) -> None:
    tiny_adapters.change_config(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(InputError, match="names the adapter itself as its base model"):
        resolve_model(str(adapter))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {n.replace("layers.1.", "layers.7."): x for n, x in t.items()},
            "What fits nothing in the model: .*layers.7",
        ),
        (
            lambda t: {n: x for n, x in t.items() if "layers.1.mlp.up" not in n},
            "What is not in the adapter's file: .*layers.1",
        ),
        (
            lambda t: {n.replace("model.model.", "model."): x for n, x in t.items()},
            "fits nothing in the model: .*; what is not",
        ),
        (
            lambda t: {n: x * float("nan") for n, x in t.items()},
            "the tensor .* of .*adapter_model.safetensors holds numbers",
        ),
    ],
    ids=["another layer", "one is missing", "another wrapper", "nan"],
)
def test_an_adapter_of_which_peft_would_load_a_part_is_refused(
    adapter: Path, load: Load, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], message: str
) -> None:
    tiny_adapters.change_tensors(adapter, change)
    with pytest.raises(InputError, match=message):
        load(str(adapter))
    if "nan" not in message and "numbers" not in message:  # names are known without reading tensors
        with pytest.raises(InputError, match=message):
            LocalStudent(model=str(adapter), device="cpu").check(make_context())


def test_an_adapter_that_is_another_once_it_is_merged_is_refused(tiny_model: str, tmp_path: Path, load: Load) -> None:
    """The head shares the embeddings: beside them the adapter changes one, merged into them both."""
    folder = tiny_adapters.write_adapter(tmp_path / "tied", tiny_model, target_modules=["embed_tokens"])
    with pytest.raises(InputError, match="cannot be merged: merged, its logits are"):
        load(str(folder))


HUB = """
from distillkit_builtin.model_source import resolve_model, tokenizer_source

print(resolve_model("org/adapter"))
print(tokenizer_source("org/adapter"), resolve_model("org/base"))
"""


def test_an_adapter_on_the_hub_is_merged_into_the_base_that_it_names(adapter: Path, tmp_path: Path) -> None:
    tiny_adapters.change_config(adapter, base_model_name_or_path="org/base")
    cache, revision = tmp_path / "hub/models--org--adapter", "f" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text(revision)
    snapshot = cache / "snapshots" / revision
    shutil.copytree(adapter, snapshot)
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", HUB], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        str(ModelSource("org/base", (snapshot,))),
        f"org/base {ModelSource('org/base')}",
    ]
