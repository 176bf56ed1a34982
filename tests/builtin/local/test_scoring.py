from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_models

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit_builtin.local.causal_lm import Network, PromptAndResponse
from distillkit_builtin.local.fast.backbone import KNOWN, FastTrunk
from distillkit_builtin.local.fast.self_check import proven_trunk
from distillkit_builtin.local.scoring import common_prefix, score_logprobs


def items(shared: int) -> list[PromptAndResponse]:
    """Prompts that have their first tokens in common, of different lengths; one is nothing else."""
    rng = np.random.default_rng(0)
    prefix = rng.integers(5, 250, shared)
    return [
        PromptAndResponse(token_ids([*prefix, *rng.integers(5, 250, own)]), token_ids(rng.integers(5, 250, new)))
        for own, new in ((1, 3), (17, 5), (4, 1), (1, 8))
    ]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("shared", [0, 40])
@torch.no_grad()
def test_scores_are_those_of_the_models_own_forward_whatever_prompts_share(
    tmp_path: Path, load: Callable[..., Network], forward: str, family: str, shared: int
) -> None:
    network = load(tiny_models.write_model(tmp_path, family=family))
    if forward == "fast":
        if family not in KNOWN:
            return
        proven_trunk(network)
    expected = torch.cat([plain_logprobs(network.model, item) for item in items(shared)])
    logprobs, ids = score_logprobs(network, items(shared))
    torch.testing.assert_close(logprobs, expected, atol=5e-5, rtol=1e-5)
    assert ids.tolist() == [index for item in items(shared) for index in item.response_ids.tolist()]


def test_what_prompts_share_is_read_once(network: Network) -> None:
    read: list[torch.Size] = []
    network.trunk.embed_tokens.register_forward_hook(lambda module, args, out: read.append(args[0].shape))
    score_logprobs(network, items(40))
    assert read == [torch.Size([1, 40]), torch.Size([4, 22])]


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        ([[1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2, 4, 5]], 2),
        ([[1, 2], [1, 2, 4, 5]], 1),
        ([[9, 2], [1, 2]], 0),
        ([[1], [1, 2]], 0),
    ],
)
def test_the_last_token_of_a_prompt_is_never_shared(prompts: list[list[int]], shared: int) -> None:
    assert common_prefix([token_ids(prompt) for prompt in prompts]) == shared


def repeated(prefix: int, repeats: int) -> list[PromptAndResponse]:
    """Three prompts of different lengths, each with several responses of different lengths, mixed."""
    rng = np.random.default_rng(1)
    first = rng.integers(5, 250, prefix)
    prompts = [token_ids([*first, *rng.integers(5, 250, own)]) for own in (1, 30, 12)]
    return [PromptAndResponse(prompts[i % 3], token_ids(rng.integers(5, 250, 2 + i))) for i in range(3 * repeats)]


@pytest.mark.parametrize("family", sorted(KNOWN))
@pytest.mark.parametrize("prefix", [0, 5, 40])
@torch.no_grad()
def test_several_responses_to_a_prompt_are_scored_as_each_alone(
    tmp_path: Path, load: Callable[..., Network], family: str, prefix: int
) -> None:
    network = load(tiny_models.write_model(tmp_path, family=family))
    proven_trunk(network)
    expected = torch.cat([plain_logprobs(network.model, item) for item in repeated(prefix, 3)])
    logprobs, ids = score_logprobs(network, repeated(prefix, 3))
    torch.testing.assert_close(logprobs, expected, atol=5e-5, rtol=1e-5)
    assert ids.tolist() == [index for item in repeated(prefix, 3) for index in item.response_ids.tolist()]


def read_by(trunk: FastTrunk, items: list[PromptAndResponse], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass through the trunk reads, padding included."""
    read: list[int] = []
    forward = FastTrunk.__call__
    monkeypatch.setattr(
        FastTrunk, "__call__", lambda self, ids, *rest: read.append(len(ids)) or forward(self, ids, *rest)
    )
    score_logprobs(trunk.network, items)
    return read


def test_a_prompt_of_several_responses_is_read_once(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last token of a prompt is read with each response, whose own last token is not read."""
    assert read_by(proven_trunk(network), repeated(40, 2), monkeypatch) == [40, 3 * 29, 6 * 7]


def test_a_single_response_is_read_with_its_prompt(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_by(proven_trunk(network), repeated(0, 1), monkeypatch) == [3 * 32]
