"""Packed attention computes what it is asked for, and is asked for nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.packing import packed_attention
from distillkit_builtin.local.packing.packed_attention import ATTENTION


@pytest.mark.parametrize("value", [5.0, torch.ones(1), True, "any"])
def test_a_keyword_of_attention_that_is_not_known_is_not_dropped(value: object) -> None:
    with pytest.raises(UnsupportedModelError, match="'attention_slope'"):
        attended(attention_slope=value)
    attended(attention_slope=None)


def test_attention_with_dropout_or_in_both_directions_is_refused() -> None:
    attended(dropout=0.0, is_causal=True)
    with pytest.raises(UnsupportedModelError, match="'dropout'"):
        attended(dropout=0.1)
    with pytest.raises(UnsupportedModelError, match="not causal"):
        attended(is_causal=False)


def attended(**options: object) -> None:
    """Attention to three tokens, called with more options."""
    tokens, ends = torch.rand(1, 2, 3, 4), torch.tensor([0, 3])
    ALL_ATTENTION_FUNCTIONS[ATTENTION](
        nn.Module(), tokens, tokens, tokens, None, cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=3, **options
    )


@pytest.mark.parametrize(("window", "key_width", "value_width"), [(None, 8, 8), (5, 8, 8), (None, 8, 6), (5, 6, 8)])
def test_flash_attention_is_asked_for_what_the_layers_ask(
    window: int | None, key_width: int, value_width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that computes what PyTorch says of `varlen_attn`: equal widths, tokens before one and behind."""

    def varlen(
        query: Tensor, key: Tensor, value: Tensor, *rest: Any, scale: float, window_size: tuple[int, int]
    ) -> Tensor:
        assert query.shape[-1] == key.shape[-1] == value.shape[-1]
        before, behind = window_size
        apart = torch.arange(len(query))[:, None] - torch.arange(len(key))
        allowed = (apart >= -behind) & ((apart <= before) if before >= 0 else torch.tensor(True))
        scores = torch.einsum("qhd,khd->hqk", query, key) * scale
        return torch.einsum("hqk,khd->qhd", torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1), value)

    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 11, key_width, generator=generator) for _ in range(2))
    value, ends = torch.randn(1, 2, 11, value_width, generator=generator), torch.tensor([0, 11])
    options = {"scaling": 0.7, "sliding_window": window, "max_length_q": 16}
    attend = ALL_ATTENTION_FUNCTIONS[ATTENTION]
    given = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, **options}
    expected, _ = attend(nn.Module(), query, key, value, None, **given)
    monkeypatch.setattr(packed_attention, "varlen_attention", varlen)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    found, _ = attend(nn.Module(), query, key, value, None, **given)
    torch.testing.assert_close(found, expected)
