"""Whether attention inside packed sequences reads what it should on this device, found for each kind of call."""

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.packing.packed_attention import ATTENTION, AttentionCall
from distillkit_builtin.local.packing.packing import MIN_LONGEST

BESIDE = (7, 3, 1)
"""Tokens of the sequences behind the first; that one is as long as a window and a few tokens more."""

BACK = 5
"""How far before the last token another one is looked at."""


def require_exact_attention(causal_lm: CausalLM, call: AttentionCall) -> None:
    """Raise UnsupportedModelError unless every query reads the values of its own window, and no others.

    Nothing is rounded in this: the gradient of what one token reads is zero at every value that it does not read, and
    at no other. Scores are small, so that no weight vanishes.
    """
    device = causal_lm.device.device
    lengths = torch.tensor([(call.window or 16) + 5, *BESIDE])
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    total = int(ends[-1])
    generator = torch.Generator().manual_seed(0)

    def random(heads: int, width: int) -> Tensor:
        return torch.randn(1, heads, total, width, generator=generator).to(device, causal_lm.dtype)

    share = call.heads // call.kv_heads  # one head of keys is enough
    query = random(share, call.key_width) / (call.scaling * call.key_width**0.5)
    key, value = random(1, call.key_width), random(1, call.value_width).requires_grad_()
    on_device = ends.int().to(device)
    longest = max(MIN_LONGEST, 1 << (total - 1).bit_length())
    mixed, _ = ALL_ATTENTION_FUNCTIONS[ATTENTION](
        nn.Module(), query, key, value, None, scaling=call.scaling, sliding_window=call.window,
        cu_seq_lens_q=on_device, cu_seq_lens_k=on_device, max_length_q=longest,
    )  # fmt: skip
    for start, end in zip(ends.tolist(), ends[1:].tolist(), strict=False):
        for token in {start, max(start, end - 1 - BACK), end - 1}:
            (read,) = torch.autograd.grad(mixed[0, token].sum(), value, retain_graph=True)
            found = (read != 0).any(dim=3).flatten().nonzero().flatten().tolist()
            first = start if call.window is None else max(start, token + 1 - call.window)
            if found != list(range(first, token + 1)):
                raise UnsupportedModelError(
                    f"attention of packed sequences on {device.type} reads other tokens than it should"
                )
