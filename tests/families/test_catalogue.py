"""The catalogue covers what transformers lists, and what it makes is tiny, far from uniform, and kept by a save."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from families.catalogue import FAMILIES, NO_LANGUAGE_MODEL, NOT_BUILT
from families.dense import DENSE
from families.experts import EXPERTS
from families.family import Family
from families.hybrid import HYBRID
from families.tiny import logit_spread, logits, tiny_model, write_family
from families.wrappers import WRAPPERS

MILLIONS = 3
SAMPLE = (
    *("llama", "gemma2", "phi3-longrope", "deepseek_v3", "gpt_oss", "gemma4_text-experts", "qwen3_5_text", "mamba2"),
    *("mistral3", "llama4"),
)


def loaded(family: Family, folder: Path) -> Any:
    """The model as its folder has it, in the class that its family's checkpoints are loaded as."""
    kind = getattr(transformers, family.class_name)
    return kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def tokens() -> Tensor:
    """Ids (1, 60) of the bytes of a tiny tokenizer."""
    return torch.randint(3, 259, (1, 60), generator=torch.Generator().manual_seed(1))


def test_no_name_is_used_twice() -> None:
    assert len(FAMILIES) == len(DENSE) + len(EXPERTS) + len(HYBRID) + len(WRAPPERS)


def test_every_language_model_of_transformers_is_made_or_left_out_for_a_reason() -> None:
    listed = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}
    made = {family.model_type for family in FAMILIES.values()}

    assert made & {*NO_LANGUAGE_MODEL, *NOT_BUILT} == set()
    assert not NO_LANGUAGE_MODEL.keys() & NOT_BUILT.keys()
    # What a newer transformers adds is named by `make families` as untested; what it has had is all here.
    assert {*made, *NO_LANGUAGE_MODEL, *NOT_BUILT} - listed == set()


@pytest.mark.parametrize("name", FAMILIES)
def test_its_class_is_built_from_its_config_and_is_small(name: str) -> None:
    family = FAMILIES[name]
    config = family.config()
    with torch.device("meta"):
        model = getattr(transformers, family.class_name)(config)

    assert isinstance(config, CONFIG_MAPPING[family.model_type])
    assert config.architectures == [family.architecture or type(model).__name__]
    assert sum(parameter.numel() for parameter in model.parameters()) < MILLIONS * 10**6
    assert config.get_text_config().vocab_size >= 259


@pytest.mark.parametrize("name", SAMPLE)
def test_its_weights_make_telling_distributions_and_are_loaded_as_they_were_saved(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    model = tiny_model(family)
    write_family(family, tmp_path)
    again = loaded(family, tmp_path)
    weights, kept = model.state_dict(), again.state_dict()

    assert 0.7 < logit_spread(model, tokens()) < 3.0
    assert weights.keys() == kept.keys()
    assert [key for key in weights if not torch.equal(weights[key], kept[key])] == []
    assert again.config.architectures == [family.architecture or family.class_name]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_token_changes_what_comes_behind_it_and_nothing_before(name: str) -> None:
    model = tiny_model(FAMILIES[name])
    ids = tokens()
    changed = ids.clone()
    changed[0, 50] = 3 + (ids[0, 50] - 3 + 7) % 256
    apart = (logits(model, ids) - logits(model, changed))[0].abs().amax(-1)

    assert apart[:50].max() < 1e-4
    assert apart[51:].max() > 0.1


def test_a_seed_gives_the_same_weights_whatever_was_drawn_before_and_another_seed_others() -> None:
    first = tiny_model(FAMILIES["llama"], seed=3).state_dict()
    torch.randn(7)
    again = tiny_model(FAMILIES["llama"], seed=3).state_dict()
    other = tiny_model(FAMILIES["llama"], seed=4).state_dict()

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_table_of_experts_sends_tokens_to_all_of_them() -> None:
    model = tiny_model(FAMILIES["deepseek_v4"])
    tables = [table for name, table in model.named_buffers() if name.endswith("tid2eid")]

    assert tables
    for table in tables:
        assert set(table.unique().tolist()) == set(range(model.config.n_routed_experts))
        assert (table[:, 0] != table[:, 1]).all()


def test_a_config_shares_no_list_with_the_next_one() -> None:
    FAMILIES["gemma3_text"].config().layer_types.clear()

    assert len(FAMILIES["gemma3_text"].config().layer_types) == 4


def test_checkpoints_that_name_a_class_of_their_own_say_so(tmp_path: Path) -> None:
    write_family(FAMILIES["exaone"], tmp_path)

    assert AutoConfig.from_pretrained(tmp_path).architectures == ["ExaoneForCausalLM"]
    assert FAMILIES["exaone"].class_name == "LlamaForCausalLM"
