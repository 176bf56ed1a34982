"""Models that compute long sequences in another way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_causal_lm, random_model
from helpers.own_forward import reference

from distillkit.arrays import token_ids
from distillkit.testing import make_context
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.model_files.model_config import context_length
from distillkit_builtin.local.student import LocalStudent

LONGROPE = {
    "original_max_position_embeddings": 40,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 40,
        "short_factor": [1.0] * 4, "long_factor": [9.0] * 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("over", [LONGROPE, {"index_topk": 40}], ids=["longrope", "sparse"])
def test_sequences_that_would_be_computed_in_two_ways_are_not_read(over: dict[str, Any], tmp_path: Path) -> None:
    random_model("phi3").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **over}))
    assert context_length(str(tmp_path)) == 40
    notes = LocalStudent(model=str(tmp_path), device="cpu").check(make_context()).notes
    assert "reads sequences of at most 40 tokens here" in notes[1]
    assert "sampling.max_completion_tokens" in notes[1]


def test_up_to_that_length_a_batch_changes_nothing_and_beyond_it_would() -> None:
    causal_lm = proved(random_causal_lm("phi3", **LONGROPE))
    ids = np.random.default_rng(0).integers(5, 250, 60)
    short = PromptAndResponse(token_ids(ids[:9]), token_ids(ids[9:20]))
    alone = reference(causal_lm, short)
    for length, same in ((40, True), (41, False)):
        beside = PromptAndResponse(token_ids(ids[:30]), token_ids(ids[30:length]))
        found, _ = score_logprobs(causal_lm, [short, beside])
        assert torch.allclose(found[:11], alone, atol=1e-4) == same
