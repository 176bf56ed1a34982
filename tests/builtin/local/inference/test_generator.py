from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_models

from distillkit.records import Rollout
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.inference.generator import Generator
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator, sample_indices, truncated_logprobs

Ask = Callable[..., list[SampleRequest]]
Sample = Callable[..., list[Rollout]]
PROBABILITIES = torch.tensor([0.05, 0.5, 0.2, 0.25])


@pytest.fixture(params=["plain", "recorded", "fast", "behind"])
def forward(request: pytest.FixtureRequest) -> str:
    """Every way to sample: steps may be recorded, and the host may read tokens while the next are sampled."""
    return str(request.param)


def decoded(causal_lm: CausalLM, index: int) -> str:
    """A token's text."""
    return HFTokenizer.load(str(causal_lm.model.name_or_path)).decode([index])


def shares(logprobs: torch.Tensor, count: int = 10_000) -> list[float]:
    """How often each index is sampled by evenly spread uniforms."""
    uniforms = (torch.arange(count) + 0.5) / count
    counts = Counter(sample_indices(logprobs.expand(count, -1), uniforms).tolist())
    return [counts[i] / count for i in range(len(logprobs))]


def test_samples_follow_the_distribution() -> None:
    assert shares(PROBABILITIES.log()) == pytest.approx(PROBABILITIES.tolist(), abs=1e-3)
    assert sample_indices(PROBABILITIES.log()[None], torch.tensor([1 - 1e-9])).item() == 3


@pytest.mark.parametrize(
    ("top_p", "top_k", "kept"),
    [(1.0, 0, [0, 1, 2, 3]), (1.0, 2, [1, 3]), (0.6, 0, [1, 3]), (0.5, 0, [1]), (0.01, 0, [1]), (0.9, 2, [1, 3])],
)
def test_truncation_keeps_the_most_likely_and_their_proportions(top_p: float, top_k: int, kept: list[int]) -> None:
    expected = [PROBABILITIES[i].item() / sum(PROBABILITIES[kept]).item() if i in kept else 0.0 for i in range(4)]
    params = SamplingParams(1, top_p=top_p, top_k=top_k)
    assert shares(truncated_logprobs(PROBABILITIES.log()[None] + 3, params)[0]) == pytest.approx(expected, abs=1e-3)


def test_temperature_sharpens_the_distribution() -> None:
    squared = PROBABILITIES.square() / PROBABILITIES.square().sum()
    found = shares(truncated_logprobs(PROBABILITIES.log()[None], SamplingParams(1, temperature=0.5))[0])
    assert found == pytest.approx(squared.tolist(), abs=1e-3)


def rescored(causal_lm: CausalLM, rollouts: list[Rollout]) -> np.ndarray:
    items = [PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids) for rollout in rollouts]
    with torch.no_grad():
        return causal_lm.response_logprobs(items).numpy()


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("params", [{}, {"temperature": 0.3}, {"top_p": 0.7, "top_k": 5}])
def test_logprobs_are_the_untouched_policys_at_the_sampled_tokens(
    tmp_path: Path,
    load: Callable[..., CausalLM],
    ask: Ask,
    sample: Sample,
    forward: str,
    family: str,
    params: dict[str, float],
) -> None:
    causal_lm = load(tiny_models.write_model(tmp_path, family=family))
    if forward in ("fast", "behind") and family not in tiny_models.FAST:
        with pytest.raises(UnsupportedModelError, match=r"model type|softcapping"):
            sample(causal_lm, ask())
        return
    rollouts = sample(causal_lm, ask(**params))
    logprobs = np.concatenate([rollout.logprobs for rollout in rollouts])
    np.testing.assert_allclose(logprobs, rescored(causal_lm, rollouts), atol=1e-4)


def test_in_bfloat16_sampling_and_scoring_differ_by_rounding_alone(
    load: Callable[..., CausalLM], tiny_model: str, ask: Ask, sample: Sample
) -> None:
    causal_lm = load(tiny_model, torch.bfloat16)
    rollouts = sample(causal_lm, ask(24))
    difference = np.abs(np.concatenate([rollout.logprobs for rollout in rollouts]) - rescored(causal_lm, rollouts))
    assert 0 < difference.mean() < 0.05


def test_a_completion_does_not_depend_on_its_companions(causal_lm: CausalLM, ask: Ask, sample: Sample) -> None:
    requests = ask(7)
    together = sample(causal_lm, requests)
    alone = [sample(causal_lm, [request])[0] for request in requests]
    for one, other in zip(together, alone, strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    assert len({tuple(rollout.token_ids.tolist()) for rollout in together}) > 1


def test_the_most_likely_tokens_are_those_of_transformers(causal_lm: CausalLM, ask: Ask, sample: Sample) -> None:
    for rollout in sample(causal_lm, ask(temperature=0.0)):
        prompt = torch.tensor(rollout.request.prompt_ids)[None]
        theirs = causal_lm.model.generate(prompt, max_new_tokens=12, do_sample=False, attention_mask=prompt * 0 + 1)
        assert rollout.token_ids.tolist() == theirs[0, prompt.shape[1] :].tolist()


def test_a_completion_ends_at_an_eos_which_is_part_of_it(causal_lm: CausalLM, ask: Ask, sample: Sample) -> None:
    requests = ask(12)
    free = sample(causal_lm, requests, eos=())
    assert {rollout.finish_reason for rollout in free} == {"length"}
    assert {len(rollout.token_ids) for rollout in free} == {12}
    ends = [rollout.token_ids[i % 12] for i, rollout in enumerate(free)]
    for ended, whole in zip(sample(causal_lm, requests, eos=ends), free, strict=True):
        first = next(i for i, token in enumerate(whole.token_ids) if token in ends)
        assert ended.token_ids.tolist() == whole.token_ids[: first + 1].tolist()
        assert ended.finish_reason == "stop"
        np.testing.assert_allclose(ended.logprobs, whole.logprobs[: first + 1], atol=1e-4)


def test_stop_ids_end_a_completion_as_an_eos_does(causal_lm: CausalLM, ask: Ask, sample: Sample) -> None:
    free = sample(causal_lm, ask(12), eos=())
    ends = tuple(int(rollout.token_ids[i % 12]) for i, rollout in enumerate(free))
    by_eos = sample(causal_lm, ask(12), eos=ends)
    for stopped, expected in (
        (sample(causal_lm, ask(12, stop_ids=ends), eos=()), by_eos),
        (sample(causal_lm, ask(12, stop_ids=ends[:6]), eos=ends[6:]), by_eos),  # several, of both kinds
        (sample(causal_lm, ask(12, stop_ids=(10**6,)), eos=()), free),
    ):
        assert [each.token_ids.tolist() for each in stopped] == [each.token_ids.tolist() for each in expected]
        assert [each.finish_reason for each in stopped] == [each.finish_reason for each in expected]


def test_one_generator_ends_each_call_at_that_calls_ids(
    causal_lm: CausalLM, ask: Ask, make_generator: Callable[..., Generator], forward: str
) -> None:
    """Slots and graphs stay from call to call, and ends of completions are in them."""
    generator = make_generator(causal_lm, (), forward)

    def rollouts(**params: object) -> list[Rollout]:
        found: list[Rollout] = []
        generator.generate(ask(6, **params), 64, 0, found.append)
        return found

    ends = tuple({int(each.token_ids[0]) for each in rollouts()})
    assert {len(each.token_ids) for each in rollouts(stop_ids=ends)} == {1}
    assert {len(each.token_ids) for each in rollouts()} == {12}


@pytest.mark.parametrize("forward", ["recorded", "fast"])
def test_large_memory_makes_way_at_the_end_of_a_call_and_is_made_again(
    causal_lm: CausalLM, ask: Ask, make_generator: Callable[..., Generator], forward: str
) -> None:
    generator = make_generator(causal_lm, (), forward)

    def held() -> int:
        if isinstance(generator, PlainGenerator):
            return generator.fixed.size_bytes if generator.fixed else 0
        assert isinstance(generator, SlotGenerator)
        return generator._decoder.slots.size_bytes if generator._decoder else 0

    def sampled() -> list[tuple[list[int], list[float]]]:
        found: list[Rollout] = []
        generator.generate(ask(6), 64, 0, found.append)
        return sorted((each.token_ids.tolist(), each.logprobs.tolist()) for each in found)

    before = sampled()
    whole = held()
    assert whole
    for least, stays in ((whole + 1, True), (whole, False), (whole, False)):
        generator.gives_up = least
        assert sampled() == before
        assert bool(held()) is stays


@pytest.mark.parametrize("end", ["eos", "stop_ids", "stop", "none"])
def test_an_end_at_the_last_token_that_is_allowed_is_an_end(
    causal_lm: CausalLM, ask: Ask, sample: Sample, end: str
) -> None:
    ids = sample(causal_lm, ask(1, max_tokens=60), eos=())[0].token_ids.tolist()
    at = next(at for at in range(4, 60) if ids[at] not in ids[:at] and decoded(causal_lm, ids[at]).isalnum())
    params: dict[str, object] = {"max_tokens": at + 1}
    if end in ("stop", "stop_ids"):
        params[end] = (decoded(causal_lm, ids[at]) if end == "stop" else ids[at],)
    (rollout,) = sample(causal_lm, ask(1, **params), eos=(ids[at],) if end == "eos" else ())
    assert rollout.token_ids.tolist() == ids[: at + 1]
    assert rollout.finish_reason == ("length" if end == "none" else "stop")


def test_a_stop_string_ends_a_completion(causal_lm: CausalLM, ask: Ask, sample: Sample) -> None:
    free = sample(causal_lm, ask(1), eos=())[0]
    text = free.text[4:6]
    (stopped,) = sample(causal_lm, ask(1, stop=(text,)), eos=())
    assert stopped.finish_reason == "stop"
    assert stopped.text.endswith(text)
    assert free.text.startswith(stopped.text)
    assert text not in stopped.text[:-1]


def test_stop_strings_and_ends_of_many_completions_do_not_depend_on_slots(
    causal_lm: CausalLM, ask: Ask, sample: Sample
) -> None:
    free = sample(causal_lm, ask(12), eos=())
    stops = tuple({rollout.text[k : k + 2] for k, rollout in enumerate(free[:3], start=2)})
    ends = [int(rollout.token_ids[5 + i % 3]) for i, rollout in enumerate(free[3:6])]
    requests = ask(12, stop=stops)
    for one, other in zip(sample(causal_lm, requests, ends, size=3), sample(causal_lm, requests, ends), strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        assert one.finish_reason == other.finish_reason
    assert len({len(rollout.token_ids) for rollout in sample(causal_lm, requests, ends)}) > 3


def test_more_requests_than_slots_sample_the_same(causal_lm: CausalLM, ask: Ask, sample: Sample) -> None:
    lengths = [3, 12, 1, 7, 5, 12, 2, 9, 4, 6]
    requests = [request for i, n in enumerate(lengths) for request in [ask(10, max_tokens=n)[i]]]
    for one, other in zip(sample(causal_lm, requests, size=3), sample(causal_lm, requests, size=10), strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_another_seed_samples_something_else(causal_lm: CausalLM, ask: Ask, sample: Sample) -> None:
    first, second = ask(1)[0], ask(2)[1]
    same = SampleRequest(first.key, first.prompt_ids, first.seed, first.params)
    other = SampleRequest(first.key, first.prompt_ids, second.seed, first.params)
    ids = [sample(causal_lm, [request])[0].token_ids.tolist() for request in (first, same, other)]
    assert ids[0] == ids[1] != ids[2]
