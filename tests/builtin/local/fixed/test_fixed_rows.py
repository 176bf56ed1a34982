"""Memory and steps that stay from batch to batch, and what makes them anew."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_causal_lm
from helpers.recorded_work import RecordedWork

from distillkit.arrays import token_ids
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.fixed.fixed_rows import ROUND, FixedDecoder
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator

Sample = Callable[..., list[Rollout]]


@pytest.fixture
def captured() -> list[RecordedWork]:
    """What was recorded so far."""
    return []


@pytest.fixture
def decoder(captured: list[RecordedWork]) -> FixedDecoder:
    def capture(work: Callable[[], None]) -> RecordedWork:
        captured.append(RecordedWork(work))
        return captured[-1]

    return FixedDecoder(random_causal_lm("gemma3_text", sliding_window=5), capture, shortest=16)


@pytest.fixture
def sample(decoder: FixedDecoder, tiny_model: str) -> Sample:
    tokenizer = HFTokenizer.load(tiny_model)

    def sampled(rows: int = 5, prompt: int = 9, tokens: int = 12, *, fixed: bool = True) -> list[Rollout]:
        numbers = np.random.default_rng(0)
        prompts = [token_ids(numbers.integers(5, 250, prompt - row % 3)) for row in range(rows)]
        ends = frozenset(range(3, 60))  # so that completions have many lengths
        requests = [
            SampleRequest(SampleKey("1-x", 0, row), each, row, SamplingParams(max_tokens=tokens))
            for row, each in enumerate(prompts)
        ]
        generator = PlainGenerator(decoder.causal_lm, tokenizer, ends, decoder if fixed else None, ahead=fixed)
        rollouts: list[Rollout] = []
        generator.generate(requests, 64, 0, rollouts.append)
        return sorted(rollouts, key=lambda rollout: rollout.key)

    return sampled


def require_same(found: list[Rollout], expected: list[Rollout]) -> None:
    assert [each.token_ids.tolist() for each in found] == [each.token_ids.tolist() for each in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert np.allclose(mine.logprobs, theirs.logprobs, atol=1e-5)


def test_the_same_seeds_give_the_same_completions_in_every_batch(sample: Sample, captured: list[Any]) -> None:
    expected = [sample(fixed=False), sample(3, 12, 30, fixed=False)]
    assert len({len(rollout.token_ids) for rollout in expected[0]}) > 1
    require_same(sample(), expected[0])
    for again in (expected[0], expected[1], expected[0]):  # in memory that others were in
        require_same(sample() if again is expected[0] else sample(3, 12, 30), again)
    assert captured


def test_memory_and_steps_stay_while_they_are_large_enough(
    sample: Sample, decoder: FixedDecoder, captured: list[Any]
) -> None:
    sample()
    memory, count = decoder.memory, len(captured)
    assert memory is not None
    assert (memory.capacity, memory.length) == (5, ROUND)
    sample()
    sample()
    assert decoder.memory is memory
    kept = len(captured)
    sample()
    assert len(captured) == kept >= count
    sample(tokens=ROUND)
    assert decoder.memory is not memory
    assert decoder.memory is not None
    assert decoder.memory.length == 2 * ROUND


def test_few_steps_are_kept_and_the_others_made_again(
    sample: Sample, decoder: FixedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillkit_builtin.local.fixed.fixed_rows.MOST_STEPS", 2)
    expected = [sample(rows, tokens=30, fixed=False) for rows in (5, 4, 3)]
    for rows, same in zip((5, 4, 3), expected, strict=True):
        require_same(sample(rows, tokens=30), same)
    assert decoder.memory is not None
    assert len(decoder.memory.steps) == 2
    last = next(reversed(decoder.memory.steps))
    decoder.memory.step(*next(iter(decoder.memory.steps)))
    assert next(iter(decoder.memory.steps)) == last, "the one that was not used for longest goes first"


def test_weights_that_change_in_place_count_and_those_that_move_make_new_steps(
    sample: Sample, decoder: FixedDecoder, captured: list[RecordedWork]
) -> None:
    for _ in range(3):
        sample()
    kept, weight = len(captured), decoder.causal_lm.model.get_input_embeddings().get_parameter("weight")
    with torch.no_grad():
        weight.mul_(0.9)
    require_same(sample(), sample(fixed=False))
    steps = dict(decoder.memory.steps) if decoder.memory else {}
    weight.data = weight.data.clone()
    require_same(sample(), sample(fixed=False))
    assert decoder.memory is not None
    assert all(
        decoder.memory.steps[shape] is not step for shape, step in steps.items() if shape in decoder.memory.steps
    )
    assert len(captured) > kept


def test_memory_is_freed_when_it_is_asked_for_and_when_there_is_too_little(
    sample: Sample, decoder: FixedDecoder, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = PlainGenerator(decoder.causal_lm, HFTokenizer.load(tiny_model), frozenset(), decoder)
    assert not generator.free_caches()
    sample()
    assert generator.free_caches()
    assert decoder.memory is None
    assert not generator.free_caches()
    sample()

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("too little")

    monkeypatch.setattr(CausalLM, "hidden_states", fail)
    with pytest.raises(torch.OutOfMemoryError):
        sample()
    assert decoder.memory is None
