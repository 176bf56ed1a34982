"""Attention inside packed sequences that reads one token too many or too few is found, however little it weighs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.explicit_attention import DTYPES, Allowed, explicit, forgets, leaks, leaks_ahead, llama, right

from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.packing.attention_proof import require_exact_attention
from distillkit_builtin.local.packing.packed_attention import AttentionCall


@DTYPES
@pytest.mark.parametrize("change", [leaks, leaks_ahead, forgets])
def test_attention_to_one_token_too_many_or_too_few_is_found(
    put: Callable[[Any], None], change: Allowed, dtype: torch.dtype
) -> None:
    causal_lm, call = llama(dtype), AttentionCall(None, 8**-0.5, 4, 2, 8, 8)
    put(explicit(right))
    require_exact_attention(causal_lm, call)
    put(explicit(change))
    with pytest.raises(UnsupportedModelError, match="reads other tokens than it should"):
        require_exact_attention(causal_lm, call)


@pytest.mark.parametrize("window", [1000, 12])
def test_a_window_of_one_token_more_is_found(put: Callable[[Any], None], window: int) -> None:
    causal_lm, call = llama(torch.bfloat16), AttentionCall(window, 0.4, 2, 1, 4, 4)
    require_exact_attention(causal_lm, call)
    if window == 12:
        put(explicit(right, window=1))
        with pytest.raises(UnsupportedModelError, match="reads other tokens than it should"):
            require_exact_attention(causal_lm, call)
