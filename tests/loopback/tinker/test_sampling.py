"""Completions and scores, in both alignments."""

import numpy as np
import pytest
import torch

pytest.importorskip("tinker")
from tinker import types

from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.tinker.service import TinkerService
from distillkit_loopback.transport.faults import Hangup
from loopback.tinker.conftest import MODEL, Connect, Start
from loopback.tinker.sdk_calls import PROMPT, TIME, as_numbers, sample, scores

IDS = [*PROMPT, 66, 99, 101]


def expected(source: str, ids: list[int], temperature: float = 1.0) -> np.ndarray:
    """[N - 1, vocabulary] by transformers' own forward."""
    with torch.no_grad():
        logits = CausalLM.load(source).model(input_ids=torch.tensor([ids[:-1]])).logits[0]
    return torch.log_softmax(logits / temperature, 1).numpy()


def of_targets(rows: np.ndarray, ids: list[int]) -> np.ndarray:
    return rows[np.arange(len(ids) - 1), ids[1:]]


def test_scores_are_the_models_in_the_servers_alignment(start: Start, connect: Connect, tiny_model: str) -> None:
    wanted = of_targets(expected(tiny_model, IDS), IDS)
    hosted = scores(connect(start("hosted")).create_sampling_client(base_model=MODEL).result(TIME), IDS)
    skyrl = scores(connect(start("skyrl")).create_sampling_client(base_model=MODEL).result(TIME), IDS)
    assert (len(hosted), hosted[0], len(skyrl)) == (len(IDS), None, len(IDS) - 1)
    np.testing.assert_allclose(np.array(hosted[1:], float), wanted, atol=1e-5)
    np.testing.assert_allclose(np.array(skyrl, float), wanted, atol=1e-5)


def test_the_last_n_alone_are_scored_where_the_server_can(start: Start, connect: Connect) -> None:
    hosted = connect(start("hosted")).create_sampling_client(base_model=MODEL).result(TIME)
    last = scores(hosted, IDS, prompt_logprobs_last_n=3)
    assert last == [*[None] * 5, *scores(hosted, IDS)[5:]]
    skyrl = connect(start("skyrl")).create_sampling_client(base_model=MODEL).result(TIME)
    with pytest.raises(RuntimeError, match="may predate this feature"):
        scores(skyrl, IDS, prompt_logprobs_last_n=3)


def test_choices_of_the_prompt(start: Start, connect: Connect, tiny_model: str) -> None:
    rows = expected(tiny_model, IDS)
    hosted = connect(start("hosted")).create_sampling_client(base_model=MODEL).result(TIME)
    wanted = torch.full((len(IDS) - 1, 2), -1, dtype=torch.int64)
    wanted[-1] = torch.tensor([70, 33])
    for sent in (types.TensorData.from_torch(wanted), types.TensorData.from_torch_sparse(wanted, pad_value=-1)):
        found = sample(
            hosted, IDS, include_prompt_logprobs=True, topk_prompt_logprobs=3, target_prompt_logprobs=sent, max_tokens=1
        )
        assert found.topk_prompt_logprobs is not None
        assert found.target_prompt_logprobs is not None
        assert found.topk_prompt_logprobs[0] is None
        assert [index for index, _ in found.topk_prompt_logprobs[-1] or ()] == np.argsort(-rows[-1])[:3].tolist()
        targets = np.array(found.target_prompt_logprobs.tolist()).reshape(len(IDS) - 1, 2)
        np.testing.assert_allclose(targets[-1], rows[-1][[70, 33]], atol=1e-5)
        assert not targets[:-1].any()
    skyrl = connect(start("skyrl")).create_sampling_client(base_model=MODEL).result(TIME)
    ignored = sample(skyrl, IDS, include_prompt_logprobs=True, target_prompt_logprobs=sent, topk_sample_logprobs=2)
    assert (ignored.target_prompt_logprobs, ignored.sequences[0].topk_logprobs) == (None, None)
    with pytest.raises(ValueError, match="not supported by the JAX backend"):
        sample(skyrl, IDS, topk_prompt_logprobs=3)


def test_a_seed_is_a_completion_and_logprobs_are_raw(service: TinkerService, connect: Connect, tiny_model: str) -> None:
    client = connect(service).create_sampling_client(base_model=MODEL).result(TIME)
    first = sample(client, temperature=0.5, count=2)
    again = sample(client, temperature=0.5, count=2)
    other = sample(client, temperature=0.5, seed=12)
    assert [each.tokens for each in first.sequences] == [each.tokens for each in again.sequences]
    assert first.sequences[0].tokens != first.sequences[1].tokens
    assert first.sequences[0].tokens != other.sequences[0].tokens
    assert len({each.sequence_id for each in (*first.sequences, *again.sequences)}) == 4
    whole = [*PROMPT, *first.sequences[0].tokens]
    wanted = of_targets(expected(tiny_model, whole), whole)[len(PROMPT) - 1 :]
    np.testing.assert_allclose(as_numbers(first.sequences[0].logprobs or []), wanted, atol=1e-5)


def test_logprobs_can_be_those_of_the_temperature(start: Start, connect: Connect, tiny_model: str) -> None:
    client = connect(start("hosted", tempered=True)).create_sampling_client(base_model=MODEL).result(TIME)
    (found,) = sample(client, temperature=0.3).sequences
    whole = [*PROMPT, *found.tokens]
    wanted = of_targets(expected(tiny_model, whole, 0.3), whole)[len(PROMPT) - 1 :]
    np.testing.assert_allclose(as_numbers(found.logprobs or []), wanted, atol=1e-5)


def test_limits_of_the_distribution(service: TinkerService, connect: Connect) -> None:
    client = connect(service).create_sampling_client(base_model=MODEL).result(TIME)
    greedy = sample(client, temperature=0.0).sequences[0].tokens
    assert sample(client, top_k=1).sequences[0].tokens == greedy
    assert sample(client, top_p=1e-6).sequences[0].tokens == greedy
    assert sample(client).sequences[0].tokens != greedy


def test_what_ends_a_completion(service: TinkerService, connect: Connect) -> None:
    client = connect(service).create_sampling_client(base_model=MODEL).result(TIME)
    tokens = sample(client, max_tokens=8).sequences[0].tokens
    ended = tokens[: tokens.index(tokens[2]) + 1]
    service._models.frozen(MODEL).eos_ids = frozenset(ended[-1:])  # the tiny model hardly ever ends by its own
    for stop, hosted in ((None, True), ([], False), (ended[-1:], True), ([PROMPT[0]], False)):
        found = sample(client, max_tokens=8, stop=stop).sequences[0]
        stops = hosted if service.kind == "hosted" else stop == ended[-1:]
        assert (found.stop_reason, found.tokens) == (("stop", ended) if stops else ("length", tokens)), stop


def test_a_sample_that_is_sent_twice(service: TinkerService, connect: Connect) -> None:
    client = connect(service).create_sampling_client(base_model=MODEL).result(TIME)
    service.faults.add(Hangup(applied=True), where="asample$")
    assert sample(client).sequences[0].tokens == sample(client).sequences[0].tokens
    assert service.traffic.counts["/api/v1/asample"] == 3
