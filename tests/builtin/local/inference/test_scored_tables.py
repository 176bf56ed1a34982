"""A score's top-K and logprobs of given ids are those of transformers' own forward of that sequence alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_models
from helpers.next_tokens import EXACT, ROWS, V, distributions, padded_model, require_top

from distillkit.arrays import token_ids
from distillkit.records import Score, ScoreRequest
from distillkit.testing import make_rollout
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.inference import scoring
from distillkit_builtin.local.inference.scoring import score_stream
from distillkit_builtin.local.model.causal_lm import CausalLM, ResponseStates
from distillkit_builtin.local.sampling import token_tables
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.sampling.token_tables import entropy, logprobs_at, most_probable
from distillkit_builtin.local.scorer import LocalScorer

Load = Callable[..., CausalLM]


def requests_of(*wants: tuple[int, int | None]) -> list[ScoreRequest]:
    """Of different lengths; each wants top-K, and some ids: the sampled one, random ones, one beyond, and none."""
    rng, others = np.random.default_rng(3), np.random.default_rng(4)
    prefix = rng.integers(5, 250, 20)
    requests = []
    for sample, (topk, width) in enumerate(wants):
        rollout = make_rollout(rng.integers(5, 250, 3 + 4 * sample).tolist(), sample=sample)
        table = None
        if width is not None:
            table = others.integers(0, V, (len(rollout.token_ids), width))
            table[:, 0] = rollout.token_ids
            table[:, 1] = 10**6
            table[:, 2] = -1
        prompt = token_ids([*prefix, *rng.integers(5, 250, 1 + 3 * sample)])
        requests.append(ScoreRequest(rollout, "t", prompt, topk=topk, at_ids=table))
    return requests


async def scored(
    causal_lm: CausalLM, requests: Sequence[ScoreRequest], forward: str, tokens: int = 10_000
) -> list[Score]:
    backbone = verified_backbone(causal_lm) if forward == "fast" else None
    known = KnownIds.of(HFTokenizer.load(str(causal_lm.model.name_or_path)))
    batch = AdaptiveBatchSize(tokens, "tokens", "scorer.micro_batch_tokens")
    scores = [score async for score in score_stream(causal_lm, backbone, known, requests, batch)]
    return sorted(scores, key=lambda score: score.request.key)


def require_exact(causal_lm: CausalLM, score: Score, known: int) -> None:
    request = score.request
    expected = distributions(causal_lm, request.prompt_ids, request.token_ids)
    own = expected.gather(1, torch.tensor(request.token_ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(score.logprobs), own, **EXACT)
    assert score.arrays.keys() == ({"topk_ids", "topk_logprobs"} if request.topk else set()) | (
        set() if request.at_ids is None else {"at_logprobs"}
    )
    if request.topk:
        require_top(score.arrays["topk_ids"], score.arrays["topk_logprobs"], expected[:, :known])
    if request.at_ids is not None:
        found = score.arrays["at_logprobs"]
        assert np.isneginf(found[:, 1:3]).all()
        np.testing.assert_array_equal(found[:, 0], score.logprobs)
        there = torch.tensor(np.delete(request.at_ids, [1, 2], axis=1))
        torch.testing.assert_close(torch.tensor(np.delete(found, [1, 2], axis=1)), expected.gather(1, there), **EXACT)
        assert found.dtype == np.float32


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
async def test_scores_hold_what_each_request_asks_for(tmp_path: Path, load: Load, forward: str, family: str) -> None:
    if forward == "fast" and family not in tiny_models.FAST:
        return
    causal_lm = load(tiny_models.write_model(tmp_path, family=family))
    requests = requests_of((0, None), (20, None), (0, 5), (3, 9), (V, 4))
    for score in await scored(causal_lm, requests, forward):
        require_exact(causal_lm, score, V)
        assert score.ids_proved


@pytest.mark.parametrize("size", [1, 5, 7])
async def test_chunks_and_micro_batches_change_nothing(
    causal_lm: CausalLM, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    requests = requests_of((20, 6), (4, 3), (0, 5))
    monkeypatch.setattr(token_tables, "CHUNK_TOKENS", size)
    sizes: list[int] = []
    head = CausalLM.head

    def counted(causal_lm: CausalLM, hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return head(causal_lm, hidden)

    monkeypatch.setattr(CausalLM, "head", counted)
    for score in await scored(causal_lm, requests, "plain", 60):
        require_exact(causal_lm, score, V)
    assert max(sizes) <= size  # never of a whole micro-batch


async def test_out_of_memory_makes_smaller_micro_batches_and_loses_nothing(
    causal_lm: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def small_device(causal_lm: CausalLM, states: ResponseStates, *rest: Any) -> dict[str, torch.Tensor]:
        tried.append(len(states.ids))
        if len(states.ids) > 12:
            raise torch.OutOfMemoryError("no")
        return token_tables.scored_tables(causal_lm, states, *rest)

    monkeypatch.setattr(scoring, "scored_tables", small_device)
    requests = requests_of((20, 6), (4, 3), (0, 5))
    scores = await scored(causal_lm, requests, "plain")
    assert [score.request for score in scores] == requests
    for score in scores:
        require_exact(causal_lm, score, V)
    assert max(tried) > 12


async def test_the_sampled_logprobs_are_the_same_bits_with_and_without_tables(
    causal_lm: CausalLM, forward: str
) -> None:
    bare = await scored(causal_lm, requests_of((0, None), (0, None)), forward)
    full = await scored(causal_lm, requests_of((9, None), (2, 4)), forward)
    for one, other in zip(bare, full, strict=True):
        assert one.logprobs.tobytes() == other.logprobs.tobytes()
        assert not one.arrays


async def test_rows_without_a_token_are_in_no_top_k(tmp_path: Path, load: Load, forward: str) -> None:
    causal_lm = load(padded_model(tmp_path))
    requests = requests_of((11, 4), (ROWS + 5, None))
    requests[0] = replace(requests[0], at_ids=np.array([[5, 10**6, -1, V + 3]] * 3))
    first, whole = await scored(causal_lm, requests, forward)
    expected = distributions(causal_lm, first.request.prompt_ids, first.request.token_ids)
    assert expected[:, V:].exp().sum(1).max() > 0.5
    require_top(first.arrays["topk_ids"], first.arrays["topk_logprobs"], expected[:, :V])
    torch.testing.assert_close(torch.tensor(first.arrays["at_logprobs"][:, [0, 3]]), expected[:, [5, V + 3]], **EXACT)
    assert np.isneginf(first.arrays["at_logprobs"][:, 1:3]).all()
    ids, logprobs = whole.arrays["topk_ids"], whole.arrays["topk_logprobs"]
    assert np.sort(ids[:, :V], axis=1).tolist() == [list(range(V))] * len(ids)  # and behind all of them none
    assert (ids[:, V:] == -1).all()
    assert np.isneginf(logprobs[:, V:]).all()


async def test_a_head_that_is_larger_than_the_students_tokenizer_gives_only_ids_that_the_student_has(
    tmp_path: Path, load: Load
) -> None:
    """As of the row of a token that only the teacher's tokenizer has."""
    tiny_models.write_tokenizer(tmp_path / "student")
    causal_lm = load(padded_model(tmp_path / "teacher"))
    batch = AdaptiveBatchSize(10_000, "tokens", "scorer.micro_batch_tokens")
    known = KnownIds(frozenset(range(100)))
    scores = [score async for score in score_stream(causal_lm, None, known, requests_of((9, None)), batch)]
    assert scores[0].arrays["topk_ids"].max() < 100


async def test_in_bfloat16_numbers_are_float32_of_the_same_logits(load: Load, tiny_model: str, forward: str) -> None:
    causal_lm = load(tiny_model, torch.bfloat16)
    for score in await scored(causal_lm, requests_of((20, 4), (5, 3)), forward):
        np.testing.assert_array_equal(score.arrays["at_logprobs"][:, 0], score.logprobs)
        masses = np.exp(score.arrays["topk_logprobs"].astype(np.float64)).sum(axis=1)
        assert (masses <= 1).all()
        expected = distributions(causal_lm, score.request.prompt_ids, score.request.token_ids)
        found = torch.tensor(score.arrays["topk_logprobs"])
        torch.testing.assert_close(found, expected.topk(found.shape[1]).values, atol=0.1, rtol=0.05)


def test_what_has_no_probability_is_in_no_table() -> None:
    logprobs = torch.tensor([[0.5, 0.0, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]]).log()
    ids, values = most_probable(logprobs, 5)
    assert ids[0, :1].tolist() == [0]
    assert sorted(ids[0, 1:3].tolist()) == [2, 3]
    assert ids[:, 3:].tolist() == [[-1, -1]] * 2
    assert ids[1].tolist() == [1, -1, -1, -1, -1]
    assert values[1].tolist() == [0.0] + [-torch.inf] * 4
    torch.testing.assert_close(entropy(logprobs), torch.tensor([1.5 * np.log(2), 0.0]).float())
    at = logprobs_at(logprobs, torch.tensor([[3, -1, 4], [1, 0, -1]]))
    assert at.exp().tolist() == [[0.25, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_the_scorer_says_what_it_gives() -> None:
    assert LocalScorer().capabilities() == {"sampled": None, "topk": None, "at_ids": None, "full": None}
