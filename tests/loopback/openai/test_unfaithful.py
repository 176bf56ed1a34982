"""Faults of the computation: the response is in order, and its numbers are not the model's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distillkit.probe.sampling_test import SamplingTest, untouched_sampling
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer
from distillkit_loopback.openai.standing_fault import standing_fault
from distillkit_loopback.transport.faults import GENERATION_FIELDS, GenerationConfig
from loopback.openai.wire import COMPLETIONS, PROMPT, SCORING, Serve, complete, generate

OTHER = [5, 9, 8, 7, 6, 75]
NEUTRAL = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}


def scores(server: LoopbackServer, prompt: list[int] = PROMPT) -> list[float]:
    if ("POST", "/generate") in server._routes:
        found = generate(server, input_ids=prompt, logprob_start_len=0)["meta_info"]["input_token_logprobs"][1:]
        return [logprob for logprob, *_ in found]
    entries = complete(server, **{**SCORING, "prompt": prompt})["prompt_logprobs"][1:]
    return [value["logprob"] for entry in entries for value in entry.values()]


def apart(one: list[float], other: list[float]) -> float:
    return float(np.abs(np.subtract(one, other)).max())


@pytest.mark.parametrize("flavor", ["vllm", "sglang"])
def test_jitter_makes_each_score_another_by_about_its_size(serve: Serve, flavor: Any) -> None:
    server = serve(flavor=Flavor(flavor))
    right = scores(server)
    server.faults.add(faults.Jitter(0.01), times=None)
    found = np.array([scores(server) for _ in range(40)])
    assert len(np.unique(found[:, 0])) == 40
    assert 0.005 < (found - right).std() < 0.02
    assert np.all(found <= 0)
    server.faults.clear()
    assert scores(server) == right


def test_jitter_is_the_same_in_a_server_that_is_asked_the_same(serve: Serve) -> None:
    found = []
    for _ in range(2):
        server = serve()
        server.faults.add(faults.Jitter(), times=None)
        found.append([scores(server), scores(server)])
    assert found[0] == found[1]


@pytest.mark.parametrize("flavor", ["vllm", "sglang"])
def test_order_makes_a_score_depend_on_the_prompt_before_and_on_nothing_else(serve: Serve, flavor: Any) -> None:
    server = serve(flavor=Flavor(flavor))
    right = scores(server)
    server.stop()
    server = serve(flavor=Flavor(flavor))
    server.faults.add(faults.Order(0.05), times=None)
    assert scores(server) == scores(server) == right  # again and again: nothing is seen
    scores(server, OTHER)
    after_other = scores(server)
    assert 0.001 < apart(after_other, right) < 1.0
    assert scores(server) == after_other
    scores(server, [1, 2, 3])
    assert apart(scores(server), after_other) > 0.001


def test_a_replica_of_other_weights_scores_and_samples_by_them(serve: Serve) -> None:
    server = serve()
    right = scores(server)
    server.faults.add(faults.OtherWeights(2.0), times=None)
    model = CategoricalModel()
    for before, after, found in zip(PROMPT, PROMPT[1:], scores(server), strict=False):
        scaled = 2.0 * model.distribution(before)
        assert found == pytest.approx(float(scaled[after] - np.logaddexp.reduce(scaled)))
    assert apart(scores(server), right) > 0.1
    assert measured(server, NEUTRAL).untouched  # by its own weights: a single replica shows nothing


def measured(server: LoopbackServer, sent: dict[str, Any], draws: int = 96) -> SamplingTest:
    """The test of one-token completions after three prompts, with logprobs of the model as it should be."""
    groups = []
    for start in (1, 20, 40):
        group = []
        for seed in range(draws):
            asked = {"prompt": [start, start + 1, start + 2], "max_tokens": 1, "seed": seed * 7 + start, **sent}
            found = complete(server, **asked, logprobs=0, return_token_ids=True)
            group.append((found["token_ids"][0], found["logprobs"]["token_logprobs"][0]))
        groups.append(group)
    return untouched_sampling(groups)


FILLED = {"top_k": 5}


def test_what_a_request_leaves_out_is_filled_in(serve: Serve) -> None:
    server = serve()
    assert measured(server, {}).untouched
    server.faults.add(GenerationConfig(FILLED), times=None)
    assert not measured(server, {}).untouched
    assert not measured(server, {"top_k": None}).untouched
    assert measured(server, NEUTRAL).untouched
    assert "top_k" not in server.traffic.requests(COMPLETIONS)[200].fields  # what was sent, not what was filled in


def test_a_server_can_do_it_whatever_a_request_says(serve: Serve) -> None:
    server = serve()
    server.faults.add(GenerationConfig(FILLED, forced=True), times=None)
    assert not measured(server, NEUTRAL).untouched


def ids(server: LoopbackServer, **sent: Any) -> list[list[int]]:
    return [complete(server, prompt=PROMPT, seed=seed, return_token_ids=True, **sent)["token_ids"] for seed in range(8)]


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.0), ("top_p", 0.1), ("top_k", 1), ("min_p", 1.0), ("repetition_penalty", 5.0)]
)
def test_each_field_is_filled_in_as_if_it_were_sent(serve: Serve, name: str, value: float) -> None:
    server = serve()
    untouched = ids(server, max_tokens=8)
    sent = ids(server, max_tokens=8, **{name: value})
    assert sent != untouched
    server.faults.add(GenerationConfig({name: value}), times=None)
    assert ids(server, max_tokens=8) == sent
    assert ids(server, max_tokens=8, **{name: NEUTRAL[name]}) == untouched
    assert name in GENERATION_FIELDS


def test_max_new_tokens_is_a_limit(serve: Serve) -> None:
    server = serve()
    server.faults.add(GenerationConfig({"max_new_tokens": 3}), times=None)
    assert {len(found) for found in ids(server, max_tokens=8)} == {3}
    assert {len(found) for found in ids(server, max_tokens=2)} == {2}


def test_sglang_takes_null_for_a_value(serve: Serve) -> None:
    server = serve(flavor=Flavor("sglang"))
    server.faults.add(GenerationConfig({"top_k": 1}), times=None)

    def greedy(**params: Any) -> bool:
        found = [
            generate(server, 6, input_ids=PROMPT, sampling_params={"sampling_seed": seed, **params})["output_ids"]
            for seed in range(4)
        ]
        return all(each == found[0] for each in found)

    assert greedy()
    assert not greedy(top_k=-1)
    assert not greedy(top_k=None)


def test_penalties_are_those_of_vllm(serve: Serve) -> None:
    """A repetition penalty of prompt and completion, presence and frequency of the completion: on logits, as there."""
    model, server = CategoricalModel(), serve()
    sent = {"temperature": 0.0, "max_tokens": 6, "repetition_penalty": 1.5, "presence_penalty": 0.3}
    found = complete(server, prompt=PROMPT, return_token_ids=True, frequency_penalty=0.2, **sent)["token_ids"]
    done: list[int] = []
    for token in found:
        logits = model.distribution(done[-1] if done else PROMPT[-1]).copy()
        for each in {*PROMPT, *done}:
            logits[each] = logits[each] / 1.5 if logits[each] > 0 else logits[each] * 1.5
        for each in set(done):
            logits[each] -= 0.3 + 0.2 * done.count(each)
        assert token == int(logits.argmax())
        done.append(token)


def test_the_command_names_them(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"top_k": 20, "repetition_penalty": 1.1, "eos_token_id": 2}')
    read = GenerationConfig({"top_k": 20, "repetition_penalty": 1.1})
    assert standing_fault("generation-config", str(tmp_path)) == read
    assert standing_fault('generation-config={"top_k": 1}', "x") == GenerationConfig({"top_k": 1})
    assert standing_fault("jitter=0.2", "x") == faults.Jitter(0.2)
    assert standing_fault("order", "x") == faults.Order()
    assert standing_fault("replica=1.05", "x") == faults.OtherWeights(1.05)
