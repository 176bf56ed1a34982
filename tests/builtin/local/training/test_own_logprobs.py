"""The trained weights' logprobs, as a probe asks for them: the reference's, and nothing of training changes."""

import pytest
import torch
from helpers.model_families import random_causal_lm
from torch import Tensor

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import logprob_array, token_ids
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.training.own_logprobs import own_logprobs
from distillkit_builtin.local.training.policy import Policy

LENGTHS = ((5, 9), (11, 3), (40, 4), (5, 1))


def rollouts() -> list[Rollout]:
    numbers = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(5, 250, (count,), generator=numbers).tolist()

    params = SamplingParams(64)
    return [
        Rollout(
            SampleRequest(SampleKey("1-x", 0, place), token_ids(ids(prompt)), place, params),
            0,
            token_ids(ids(response)),
            logprob_array([-1.0] * response),
            "length",
            "",
        )
        for place, (prompt, response) in enumerate(LENGTHS)
    ]


@pytest.fixture
def policy() -> Policy:
    """A LoRA that changes something, and whose dropout would."""
    made = Policy.lora(random_causal_lm("llama", attention_dropout=0.5), rank=4, alpha=8, dropout=0.5, seed=0)
    with torch.no_grad():
        for parameter in made.trained.values():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize("max_tokens", [1, 30, 1000])
@pytest.mark.parametrize("packs", [False, True], ids=["padded", "packed"])
def test_they_are_the_references_in_any_micro_batches_and_change_nothing(
    policy: Policy, max_tokens: int, packs: bool
) -> None:
    if packs:
        policy.pack()
    asked, state = rollouts(), torch.get_rng_state()
    found = own_logprobs(policy, asked, max_tokens)
    with torch.no_grad():
        items = [PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids) for rollout in asked]
        expected = [plain_logprobs(policy.causal_lm.model, item) for item in items]
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(mine.copy()), reference, atol=1e-4, rtol=1e-4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in policy.trained.values())


def test_what_does_not_fit_at_once_is_computed_in_smaller_parts(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, compute, sizes = own_logprobs(policy, rollouts(), 1000), policy.logprobs, []

    def logprobs(items: list[PromptAndResponse]) -> Tensor:
        sizes.append(sum(map(len, items)))
        if sizes[-1] > 60:
            raise torch.OutOfMemoryError
        return compute(items)

    monkeypatch.setattr(policy, "logprobs", logprobs)
    parts = own_logprobs(policy, rollouts(), 200)
    assert sizes[0] == sum(map(sum, LENGTHS)) > 60
    assert sizes[-1] <= 60
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(torch.from_numpy(one.copy()), torch.from_numpy(other.copy()), atol=1e-5, rtol=1e-5)
