"""A completion's top-K and entropy are those of transformers' own forward, and cost the sampling nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_models
from helpers.next_tokens import EXACT, ROWS, V, distributions, padded_model, require_top

from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.testing import make_context, make_teacher
from distillkit.types import SampleRequest
from distillkit_builtin.local.inference.generator import Generator, by_params
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.student import LocalStudent

Load = Callable[..., CausalLM]
Make = Callable[..., Generator]
Ask = Callable[..., list[SampleRequest]]
WANTED = {"topk": 7, "entropy": 1}


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
    if sampler != "plain" and family not in tiny_models.FAST:
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
    each = [{"topk": 3}, {}, {"entropy": 1}, WANTED]
    requests = [wanting([request], **each[i // 5])[0] for i, request in enumerate(ask(20))]
    ends = [
        int(rollout.token_ids[2 + i % 9])
        for i, rollout in enumerate(generate(make_generator(causal_lm, (), "plain"), ask(6)))
    ]
    generator = make_generator(causal_lm, ends, sampler)
    for _ in range(2):
        rollouts = generate(generator, requests, 3)
        assert len({len(rollout.token_ids) for rollout in rollouts}) > 4
        for rollout in rollouts:
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


async def test_a_student_scores_and_samples_by_one_distribution(tiny_model: str, ask: Ask) -> None:
    context = make_context(teachers=[make_teacher("t")])
    student = LocalStudent(model=tiny_model, dtype="float32", device="cpu", lora_rank=2)
    await student.open(context)
    await student.sync(await student.publish(0))
    requests = wanting(ask(3), topk=6, entropy=1)
    rollouts = [rollout async for rollout in student.sample(requests) if isinstance(rollout, Rollout)]
    assert len(rollouts) == 3
    asked = [
        ScoreRequest(each, "student", each.request.prompt_ids, topk=6, at_ids=each.arrays["topk_ids"])
        for each in rollouts
    ]
    async for score in student.score(asked):
        assert isinstance(score, Score)
        expected = score.request.rollout.arrays["topk_logprobs"]
        np.testing.assert_allclose(score.arrays["at_logprobs"], expected, **EXACT)
        np.testing.assert_allclose(score.arrays["topk_logprobs"], expected, **EXACT)
    await student.close()
    await context.shared.release(context.user)


def test_the_student_says_what_it_gives() -> None:
    assert LocalStudent(model="m").sampling_capabilities() == {"topk": None, "entropy": None}
