from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_models

from distillkit.records import Rollout
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.local.causal_lm import Network, PromptAndResponse
from distillkit_builtin.local.fast.backbone import KNOWN, Unknown
from distillkit_builtin.local.plain_generator import draw, reshaped

Ask = Callable[..., list[SampleRequest]]
Sample = Callable[..., list[Rollout]]
LAW = torch.tensor([0.05, 0.5, 0.2, 0.25])


@pytest.fixture(params=["plain", "fast", "behind"])
def forward(request: pytest.FixtureRequest) -> str:
    """Every way to draw: the host may also look at a round of tokens while the next is drawn."""
    return str(request.param)


def shares(logprobs: torch.Tensor, draws: int = 10_000) -> list[float]:
    """How often each index is drawn by evenly spread uniforms."""
    uniforms = (torch.arange(draws) + 0.5) / draws
    counts = Counter(draw(logprobs.expand(draws, -1), uniforms).tolist())
    return [counts[i] / draws for i in range(len(logprobs))]


def test_draws_follow_the_law() -> None:
    assert shares(LAW.log()) == pytest.approx(LAW.tolist(), abs=1e-3)
    assert draw(LAW.log()[None], torch.tensor([1 - 1e-9])).item() == 3


@pytest.mark.parametrize(
    ("top_p", "top_k", "kept"),
    [(1.0, 0, [0, 1, 2, 3]), (1.0, 2, [1, 3]), (0.6, 0, [1, 3]), (0.5, 0, [1]), (0.01, 0, [1]), (0.9, 2, [1, 3])],
)
def test_truncation_keeps_the_likeliest_and_their_proportions(top_p: float, top_k: int, kept: list[int]) -> None:
    expected = [LAW[i].item() / sum(LAW[kept]).item() if i in kept else 0.0 for i in range(4)]
    params = SamplingParams(1, top_p=top_p, top_k=top_k)
    assert shares(reshaped(LAW.log()[None] + 3, params)[0]) == pytest.approx(expected, abs=1e-3)


def test_temperature_sharpens_the_law() -> None:
    squared = LAW.square() / LAW.square().sum()
    drawn = shares(reshaped(LAW.log()[None], SamplingParams(1, temperature=0.5))[0])
    assert drawn == pytest.approx(squared.tolist(), abs=1e-3)


def rescored(network: Network, rollouts: list[Rollout]) -> np.ndarray:
    items = [PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids) for rollout in rollouts]
    with torch.no_grad():
        return network.response_logprobs(items)[0].numpy()


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("params", [{}, {"temperature": 0.3}, {"top_p": 0.7, "top_k": 5}])
def test_logprobs_are_the_untouched_policys_at_the_sampled_tokens(
    tmp_path: Path,
    load: Callable[..., Network],
    ask: Ask,
    sample: Sample,
    forward: str,
    family: str,
    params: dict[str, float],
) -> None:
    network = load(tiny_models.write_model(tmp_path, family=family))
    if forward != "plain" and family not in KNOWN:
        with pytest.raises(Unknown, match="model type"):
            sample(network, ask())
        return
    rollouts = sample(network, ask(**params))
    logprobs = np.concatenate([rollout.logprobs for rollout in rollouts])
    np.testing.assert_allclose(logprobs, rescored(network, rollouts), atol=1e-4)


def test_in_bfloat16_sampling_and_scoring_differ_by_rounding_alone(
    load: Callable[..., Network], tiny_model: str, ask: Ask, sample: Sample
) -> None:
    network = load(tiny_model, torch.bfloat16)
    rollouts = sample(network, ask(24))
    apart = np.abs(np.concatenate([rollout.logprobs for rollout in rollouts]) - rescored(network, rollouts))
    assert 0 < apart.mean() < 0.05


def test_a_completion_does_not_depend_on_its_companions(network: Network, ask: Ask, sample: Sample) -> None:
    requests = ask(7)
    together = sample(network, requests)
    alone = [sample(network, [request])[0] for request in requests]
    for one, other in zip(together, alone, strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    assert len({tuple(rollout.token_ids.tolist()) for rollout in together}) > 1


def test_the_likeliest_tokens_are_those_of_transformers(network: Network, ask: Ask, sample: Sample) -> None:
    for rollout in sample(network, ask(temperature=0.0)):
        prompt = torch.tensor(rollout.request.prompt_ids)[None]
        theirs = network.model.generate(prompt, max_new_tokens=12, do_sample=False, attention_mask=prompt * 0 + 1)
        assert rollout.token_ids.tolist() == theirs[0, prompt.shape[1] :].tolist()


def test_a_completion_ends_at_an_eos_which_is_part_of_it(network: Network, ask: Ask, sample: Sample) -> None:
    requests = ask(12)
    free = sample(network, requests, eos=())
    assert {rollout.finish_reason for rollout in free} == {"length"}
    assert {len(rollout.token_ids) for rollout in free} == {12}
    ends = [rollout.token_ids[i % 12] for i, rollout in enumerate(free)]
    for ended, whole in zip(sample(network, requests, eos=ends), free, strict=True):
        first = next(i for i, token in enumerate(whole.token_ids) if token in ends)
        assert ended.token_ids.tolist() == whole.token_ids[: first + 1].tolist()
        assert ended.finish_reason == "stop"
        np.testing.assert_allclose(ended.logprobs, whole.logprobs[: first + 1], atol=1e-5)


def test_a_stop_string_ends_a_completion(network: Network, ask: Ask, sample: Sample) -> None:
    free = sample(network, ask(1), eos=())[0]
    text = free.text[4:6]
    (stopped,) = sample(network, ask(1, stop=(text,)), eos=())
    assert stopped.finish_reason == "stop"
    assert stopped.text.endswith(text)
    assert free.text.startswith(stopped.text)
    assert text not in stopped.text[:-1]


def test_stop_strings_and_ends_of_many_completions_do_not_depend_on_slots(
    network: Network, ask: Ask, sample: Sample
) -> None:
    free = sample(network, ask(12), eos=())
    stops = tuple({rollout.text[k : k + 2] for k, rollout in enumerate(free[:3], start=2)})
    ends = [int(rollout.token_ids[5 + i % 3]) for i, rollout in enumerate(free[3:6])]
    requests = ask(12, stop=stops)
    for one, other in zip(sample(network, requests, ends, size=3), sample(network, requests, ends), strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        assert one.finish_reason == other.finish_reason
    assert len({len(rollout.token_ids) for rollout in sample(network, requests, ends)}) > 3


def test_more_requests_than_slots_draw_the_same(network: Network, ask: Ask, sample: Sample) -> None:
    lengths = [3, 12, 1, 7, 5, 12, 2, 9, 4, 6]
    requests = [request for i, n in enumerate(lengths) for request in [ask(10, max_tokens=n)[i]]]
    for one, other in zip(sample(network, requests, size=3), sample(network, requests, size=10), strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_another_seed_draws_something_else(network: Network, ask: Ask, sample: Sample) -> None:
    first, second = ask(1)[0], ask(2)[1]
    same = SampleRequest(first.key, first.prompt_ids, first.seed, first.params)
    other = SampleRequest(first.key, first.prompt_ids, second.seed, first.params)
    ids = [sample(network, [request])[0].token_ids.tolist() for request in (first, same, other)]
    assert ids[0] == ids[1] != ids[2]
