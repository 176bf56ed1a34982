"""Top-K, logprobs of given ids and entropy, of scored and of sampled tokens, are those of transformers' own forward."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_models
from helpers.model_families import random_model

from distillkit.arrays import token_ids
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.testing import make_rollout
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local import token_tables
from distillkit_builtin.local.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import SUPPORTED
from distillkit_builtin.local.generator import Generator, by_params
from distillkit_builtin.local.known_ids import KnownIds
from distillkit_builtin.local.scoring import score_stream
from distillkit_builtin.local.token_tables import entropy, logprobs_at, most_probable

Load = Callable[..., CausalLM]
Make = Callable[..., Generator]
Ask = Callable[..., list[SampleRequest]]
V = tiny_models.VOCABULARY
ROWS = V + 21
WANTED = {"topk": 7, "entropy": 1}
EXACT = {"atol": 5e-5, "rtol": 1e-5}


@torch.no_grad()
def distributions(causal_lm: CausalLM, prompt: np.ndarray, response: np.ndarray) -> torch.Tensor:
    """[R, rows] float32 log-softmax of the model's own forward of this sequence alone."""
    ids = torch.tensor([*prompt.tolist(), *response.tolist()])
    logits = causal_lm.model(input_ids=ids[None]).logits[0].float()
    return torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]


def require_top(ids: np.ndarray, logprobs: np.ndarray, expected: torch.Tensor) -> None:
    """That these are the most probable of `expected` [R, V], in order."""
    values = torch.sort(expected, dim=1, descending=True).values[:, : ids.shape[1]]
    torch.testing.assert_close(torch.tensor(logprobs), values, **EXACT)
    assert (np.diff(logprobs, axis=1) <= 0).all()
    torch.testing.assert_close(expected.gather(1, torch.tensor(ids)), torch.tensor(logprobs), **EXACT)
    assert all(len(set(row)) == len(row) for row in ids.tolist())
    assert logprobs.dtype == np.float32


def padded_model(folder: Path, scale: float = 4.0) -> str:
    """More rows than its tokenizer has tokens, and most of the probability there."""
    model = random_model("llama", vocab_size=ROWS, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[V:] *= scale
    model.save_pretrained(folder)
    tiny_models.write_tokenizer(folder)
    return str(folder)


# Scores


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
    if forward == "fast" and family not in SUPPORTED:
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
    monkeypatch.setattr(CausalLM, "head", lambda self, hidden: sizes.append(len(hidden)) or head(self, hidden))
    for score in await scored(causal_lm, requests, "plain", 60):
        require_exact(causal_lm, score, V)
    assert max(sizes) <= size  # never of a whole micro-batch


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


# Samples


@pytest.fixture(params=["plain", "fast", "behind"])
def sampler(request: pytest.FixtureRequest) -> str:
    """Every way to sample: the host may also read a round of tokens while the next is sampled."""
    return str(request.param)


def generate(generator: Generator, requests: Sequence[SampleRequest], size: int = 4) -> list[Rollout]:
    rollouts: list[Rollout] = []
    for same in by_params(requests):
        generator.generate(same, size, 0, rollouts.append)
    return sorted(rollouts, key=lambda rollout: rollout.key)


def wanting(requests: Sequence[SampleRequest], **wanted: int) -> list[SampleRequest]:
    return [replace(request, wanted=wanted) for request in requests]


def require_policy(causal_lm: CausalLM, rollout: Rollout, known: int = V) -> None:
    """That a completion's arrays are those of the policy, whatever it was sampled with."""
    expected = distributions(causal_lm, rollout.request.prompt_ids, rollout.token_ids)
    wanted, arrays = rollout.request.wanted, rollout.arrays
    if "topk" in wanted:
        require_top(arrays["topk_ids"], arrays["topk_logprobs"], expected[:, :known])
        same = arrays["topk_ids"] == rollout.token_ids[:, None]
        own = np.where(same, arrays["topk_logprobs"], rollout.logprobs[:, None])
        np.testing.assert_allclose(own, np.broadcast_to(rollout.logprobs[:, None], own.shape), atol=1e-5)
    if "entropy" in wanted:
        exact = expected[:, :known].double()
        torch.testing.assert_close(
            torch.tensor(arrays["entropy"]), -(exact.exp() * exact).sum(1).float(), atol=1e-4, rtol=1e-4
        )
        assert arrays["entropy"].dtype == np.float32


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("params", [{}, {"temperature": 0.0}, {"temperature": 0.3}, {"top_p": 0.7, "top_k": 5}])
def test_completions_hold_the_untouched_policys_numbers_and_are_sampled_the_same(
    tmp_path: Path, load: Load, ask: Ask, make_generator: Make, sampler: str, family: str, params: dict[str, float]
) -> None:
    if sampler != "plain" and family not in SUPPORTED:
        return
    causal_lm = load(tiny_models.write_model(tmp_path, family=family))
    generator = make_generator(causal_lm, (2,), sampler)
    bare = generate(generator, ask(9, **params))
    for one, other in zip(generate(generator, wanting(ask(9, **params), **WANTED)), bare, strict=True):
        assert one.token_ids.tobytes() == other.token_ids.tobytes()
        assert one.logprobs.tobytes() == other.logprobs.tobytes()
        assert not other.arrays
        require_policy(causal_lm, one)


def test_requests_that_want_something_else_are_each_given_that(
    causal_lm: CausalLM, ask: Ask, make_generator: Make, sampler: str
) -> None:
    """One generator, whose slots and buffers stay; completions move between slots as others end."""
    lengths = [3, 12, 1, 7, 5, 12, 2, 9, 4, 6, 11, 8]
    each = [{"topk": 3}, {}, {"entropy": 1}, WANTED]
    requests = [wanting([ask(12, max_tokens=n)[i]], **each[i // 3])[0] for i, n in enumerate(lengths)]
    generator = make_generator(causal_lm, (2,), sampler)
    for _ in range(2):
        for rollout in generate(generator, requests, 3):
            wanted = rollout.request.wanted
            assert rollout.arrays.keys() == (
                ({"topk_ids", "topk_logprobs"} if "topk" in wanted else set()) | (wanted.keys() & {"entropy"})
            )
            require_policy(causal_lm, rollout)


def test_a_completion_that_a_stop_string_cuts_has_arrays_of_its_own_tokens(
    causal_lm: CausalLM, ask: Ask, make_generator: Make, sampler: str
) -> None:
    generator = make_generator(causal_lm, (), sampler)
    text = generate(generator, ask(1))[0].text[4:6]
    (stopped,) = generate(generator, wanting(ask(1, stop=(text,)), **WANTED))
    assert stopped.finish_reason == "stop"
    require_policy(causal_lm, stopped)


def test_rows_without_a_token_are_in_no_samples_top_k_nor_entropy(
    tmp_path: Path, load: Load, ask: Ask, make_generator: Make, sampler: str
) -> None:
    causal_lm = load(padded_model(tmp_path))
    generator = make_generator(causal_lm, (2,), sampler)
    for rollout in generate(generator, wanting(ask(5), topk=30, entropy=1)):
        require_policy(causal_lm, rollout)
    for rollout in generate(generator, wanting(ask(2), topk=ROWS)):
        assert (rollout.arrays["topk_ids"][:, V:] == -1).all()
        assert np.isneginf(rollout.arrays["topk_logprobs"][:, V:]).all()


# Their parts


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
