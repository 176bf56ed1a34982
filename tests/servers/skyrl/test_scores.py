"""Scores of a real Tinker server, in both alignments, held against the local backend."""

from pathlib import Path

import numpy as np
import pytest

from distillkit.types import Teacher
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.tinker.scorer import TinkerScorer
from servers.scoring import FLOAT32, requests_of, scores
from servers.skyrl.skyrl_process import SkyrlProcess

pytestmark = pytest.mark.servers


async def test_scores_are_those_of_the_local_backend(either_server: SkyrlProcess, tiny: Path) -> None:
    requests = requests_of(tiny)
    remote = TinkerScorer(base_url=either_server.url).bind(Teacher("smol", str(tiny), tokenizer_model=str(tiny)))
    local = LocalScorer(device="cpu", dtype="float32").bind(Teacher("smol", str(tiny)))
    theirs, ours = await scores(remote, requests), await scores(local, requests)
    assert len(theirs) == len(requests)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other.logprobs, mine.logprobs, atol=FLOAT32)
