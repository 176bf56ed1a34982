from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from builtin.local.conftest import plain_logprobs
from distillkit.types import token_ids
from distillkit_builtin.local.fast.proof import proven_trunk
from distillkit_builtin.local.fast.trunk import KNOWN
from distillkit_builtin.local.network import Network, PromptAndResponse
from distillkit_builtin.local.scoring import common_prefix, score_logprobs


def items(shared: int) -> list[PromptAndResponse]:
    """Prompts that have their first tokens in common, of different lengths; one is nothing else."""
    rng = np.random.default_rng(0)
    prefix = rng.integers(5, 250, shared)
    return [
        PromptAndResponse(token_ids([*prefix, *rng.integers(5, 250, own)]), token_ids(rng.integers(5, 250, new)))
        for own, new in ((1, 3), (17, 5), (4, 1), (1, 8))
    ]


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("shared", [0, 40])
@torch.no_grad()
def test_scores_are_those_of_the_models_own_forward_whatever_prompts_share(
    tmp_path: Path, load: Callable[..., Network], forward: str, family: str, shared: int
) -> None:
    network = load(tiny.write_model(tmp_path, family=family))
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
