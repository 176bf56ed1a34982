from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import tiny_models

from distillkit.errors import InputError
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.causal_lm import Network
from distillkit_builtin.local.fast.slot_generator import SlotSampler
from distillkit_builtin.local.generator import PlainDrawer, drawer_for

Load = Callable[..., Network]


def test_auto_takes_the_fast_path_where_it_is_proven(network: Network, tiny_model: str) -> None:
    told: list[str] = []
    assert isinstance(drawer_for(network, HFTokenizer.load(tiny_model), "auto", told.append), SlotSampler)
    assert told == []


def test_auto_takes_the_plain_path_elsewhere_and_says_why(load: Load, tmp_path: Path) -> None:
    source = tiny_models.write_model(tmp_path, family="gemma2")
    told: list[str] = []
    assert isinstance(drawer_for(load(source), HFTokenizer.load(source), "auto", told.append), PlainDrawer)
    assert told == [
        "Gemma2ForCausalLM is computed by transformers' own forward: model type 'gemma2' is none of "
        "llama, mistral, qwen2, qwen3"
    ]


def test_the_fast_path_is_refused_where_it_cannot_be_had(load: Load, tmp_path: Path) -> None:
    source = tiny_models.write_model(tmp_path, family="cohere")
    with pytest.raises(InputError, match=r"forward: fast cannot be used: model type 'cohere' .*; take auto"):
        drawer_for(load(source), HFTokenizer.load(source), "fast", print)


def test_plain_is_plain(network: Network, tiny_model: str) -> None:
    assert isinstance(drawer_for(network, HFTokenizer.load(tiny_model), "plain", print), PlainDrawer)
