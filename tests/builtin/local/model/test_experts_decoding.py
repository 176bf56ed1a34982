"""A token of a mixture reads its own experts: nothing of the size of all experts is made, and numbers are eager's."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from helpers.model_families import random_causal_lm
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillkit_builtin.local.batches.cached_rows import CachedRows
from distillkit_builtin.local.model.causal_lm import CausalLM

EXPERTS = 64
SHAPES: dict[str, Any] = {"num_experts": EXPERTS, "num_local_experts": EXPERTS, "num_experts_per_tok": 4}
FAMILIES: Mapping[str, dict[str, Any]] = {
    "qwen3_moe": {"moe_intermediate_size": 16},
    "mixtral": {},
    "gpt_oss": {},
    "olmoe": {},
    "glm4_moe": {"n_routed_experts": EXPERTS, "moe_intermediate_size": 16, "first_k_dense_replace": 0},
}


class Made(TorchDispatchMode):
    """The most numbers that one operator made anew; views of what is there are none."""

    most = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        with self:
            out = func.decompose(*args, **(kwargs or {}))
        if out is not NotImplemented:
            return out
        out = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for each in tree_leaves(out):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in given:
                self.most = max(self.most, each.numel())
        return out


@torch.inference_mode()
def one_token(causal_lm: CausalLM, experts: str | None = None) -> tuple[Tensor, int]:
    """Logits [2, vocabulary] of a token behind two prompts, and the most numbers that were made for it at once."""
    if experts is not None:
        causal_lm.model.set_experts_implementation(experts)
    prompts = [torch.arange(5 + row, 12 + row).numpy() for row in range(2)]
    rows, _ = CachedRows.prefill(causal_lm, prompts, left_padding=True)
    with Made() as made:
        return rows.next_logits(torch.tensor([7, 8])), made.most


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_reads_its_own_experts_and_gives_eagers_numbers(family: str) -> None:
    causal_lm = random_causal_lm(family, **SHAPES, **FAMILIES[family])
    named = causal_lm.model.named_parameters()
    smallest = min(each.numel() for name, each in named if "experts" in name and each.dim() == 3)
    found, most = one_token(causal_lm)
    assert most < smallest / 4
    torch.testing.assert_close(found, one_token(causal_lm, "eager")[0], atol=1e-5, rtol=1e-5)


def test_what_copies_experts_would_be_found() -> None:
    causal_lm = random_causal_lm("qwen3_moe", **SHAPES, **FAMILIES["qwen3_moe"])
    assert one_token(causal_lm, "batched_mm")[1] == 2 * 4 * 2 * 16 * 32, "two tokens' four experts, gate and up"
