from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import tiny_models
from hypothesis import given
from hypothesis import strategies as st

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit_builtin.local.causal_lm import LARGE_ENOUGH, MAX_PADDING, Network, PromptAndResponse, micro_batches

ITEMS = [
    PromptAndResponse(token_ids(range(5, 5 + prompt)), token_ids(range(50, 50 + response)))
    for prompt, response in ((3, 9), (40, 1), (7, 5))
]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@torch.no_grad()
def test_response_logprobs_are_those_of_the_models_own_forward(
    tmp_path: Path, load: Callable[..., Network], family: str
) -> None:
    network = load(tiny_models.write_model(tmp_path, family=family))
    expected = torch.cat([plain_logprobs(network.model, item) for item in ITEMS])
    logprobs, ids = network.response_logprobs(ITEMS)
    torch.testing.assert_close(logprobs, expected, atol=2e-5, rtol=1e-5)
    assert ids.tolist() == [index for item in ITEMS for index in item.response_ids.tolist()]


@torch.no_grad()
def test_only_response_positions_meet_the_vocabulary_and_few_at_a_time(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillkit_builtin.local.logprobs.CHUNK_TOKENS", 4)
    whole, _ = network.response_logprobs(ITEMS)
    met: list[int] = []
    network.model.lm_head.register_forward_hook(lambda module, args, out: met.append(len(args[0])))
    assert torch.equal(network.response_logprobs(ITEMS)[0], whole)
    assert met == [4, 4, 4, 3]


def test_an_unknown_way_to_make_logits_is_refused(network: Network) -> None:
    network.require_known_head()
    head = network.model.lm_head
    network.model.lm_head = torch.nn.Sequential(head, torch.nn.Tanh())
    with pytest.raises(InputError, match="LlamaForCausalLM makes its logits in a way that"):
        network.require_known_head()


def test_a_model_that_cannot_be_read_is_the_users_to_mend(load: Callable[..., Network], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the model of '.*' cannot be read: .*Give a local directory, or `org/name`"):
        load(str(tmp_path))


@given(st.lists(st.integers(1, 300), max_size=30), st.integers(1, 5000))
def test_micro_batches_hold_each_item_once_and_keep_to_the_limit(lengths: list[int], limit: int) -> None:
    groups = micro_batches(lengths, limit)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[i] for i in group)
        assert len(group) == 1 or padded <= limit
        assert padded <= LARGE_ENOUGH or padded - sum(lengths[i] for i in group) <= MAX_PADDING * padded
