"""What is longer than a model reads in one way is refused, whoever asks."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_model
from transformers import MiniMaxM3VLTextConfig

from distillkit.arrays import token_ids
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.preflight.prepared_run import prepare_run
from distillkit.records import Failure, ScoreRequest
from distillkit.registry import Registry
from distillkit.testing import make_context, make_rollout, make_teacher
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.local.model_files.model_config import context_length, length_limit
from distillkit_builtin.local.model_files.sequence_lengths import too_long, without
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent

DYNAMIC = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}


def written(folder: Path, kind: str, **over: Any) -> str:
    random_model(kind).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **over}))
    return str(folder)


def test_doge_reads_later_tokens_beyond_its_window_and_not_within() -> None:
    """Why `keep_window_size` is a limit; where transformers mends it, this fails and the limit can go."""
    model = random_model("doge", keep_window_size=12)
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 250, (1, 40)))

    def moved(length: int, more: int) -> float:
        alone, longer = (model(input_ids=ids[:, :n], use_cache=False).logits[0, :length] for n in (length, more))
        return float((alone - longer).norm() / alone.norm())

    assert moved(6, 12) < 1e-5
    assert moved(24, 40) > 1e-2


@pytest.mark.parametrize(
    ("kind", "over", "tokens"),
    [
        ("doge", {"keep_window_size": 40}, 40),
        ("llama", DYNAMIC, 512),
        ("llama", {}, None),
        ("phi3", {"index_topk": 30}, 30),
    ],
    ids=["dynamic mask", "dynamic rope", "none", "sparse"],
)
def test_the_limit_is_known_by_the_config(kind: str, over: dict[str, Any], tokens: int | None, tmp_path: Path) -> None:
    source = written(tmp_path, kind, **over)
    limit = length_limit(source)
    assert (limit.tokens if limit else None) == tokens
    assert context_length(source) == (tokens or 512)


def test_blocks_that_padding_moves_are_a_limit_where_a_layer_has_them(tmp_path: Path) -> None:
    for layers, tokens in ((["full_attention", "minimax_m3_sparse"], 16), (["full_attention"] * 2, None)):
        folder = tmp_path / layers[1]
        config = MiniMaxM3VLTextConfig(num_hidden_layers=2, layer_types=layers, index_block_size=16)
        config.save_pretrained(folder)
        limit = length_limit(str(folder))
        assert (limit.tokens if limit else None) == tokens


def test_requests_that_cross_it_fail_by_name_and_the_others_stay(tmp_path: Path) -> None:
    source = written(tmp_path, "phi3", index_topk=30)
    asked = [
        SampleRequest(SampleKey("1-x", 0, i), token_ids([5] * prompt), i, SamplingParams(max_tokens=10))
        for i, prompt in enumerate((20, 21, 3))
    ]
    failures = list(too_long(source, asked))
    assert [failure.request for failure in failures] == [asked[1]]
    assert "31 tokens of prompt and completion are more than the 30 that" in failures[0].reason
    assert list(without(asked, failures)) == [asked[0], asked[2]]


@pytest.mark.parametrize("role", ["student", "scorer"])
def test_an_evaluators_request_that_crosses_it_is_answered_before_anything_is_computed(
    role: str, tmp_path: Path
) -> None:
    source = written(tmp_path, "phi3", index_topk=30)
    plugin: LocalStudent | LocalScorer = LocalStudent(model=source, device="cpu")
    if role == "scorer":
        plugin = LocalScorer(device="cpu").bind(replace(make_teacher(), model=source))
    request = SampleRequest(SampleKey("1-x", 0, 0), token_ids([5] * 40), 1, SamplingParams(max_tokens=4))
    score = ScoreRequest(make_rollout([5, 6]), "teacher", token_ids([5] * 40))

    async def first(answers: Any) -> Any:
        return await anext(answers)

    for answers in (plugin.sample([request]), plugin.score([score])):
        found = asyncio.run(first(answers))
        assert isinstance(found, Failure)
        assert "more than the 30 that" in found.reason


def test_rows_that_cross_it_are_refused_with_the_reason_and_the_way_on(
    tiny_model: str, local_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    source = written(tmp_path / "limited", "phi3", index_topk=30)
    student = {"model": source, "tokenizer_model": tiny_model}
    config = local_config(student=student, sampling={"max_completion_tokens": 16})
    with pytest.raises(InputError) as caught:
        prepare_run(config, Registry.discover(), print)
    assert "more than the 30 that the student reads" in str(caught.value)
    reason = "reads sequences of at most 30 tokens here: beyond, its sparse attention (index_topk) chooses among the "
    assert str(caught.value).count(reason) == 1
    assert "leave out the longest by data.max_prompt_tokens, or take another model" in str(caught.value)


def test_a_limit_beyond_what_the_model_reads_is_no_reason(tmp_path: Path) -> None:
    source = written(tmp_path, "phi3", index_topk=4096)
    report = LocalStudent(model=source, device="cpu").check(make_context())
    assert not report.length_limit
    assert not any("reads sequences of at most" in note for note in report.notes)
