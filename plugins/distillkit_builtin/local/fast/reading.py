"""Logprobs of given responses by the fast trunk; what all prompts begin with is read once."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distillkit_builtin.local.fast.attention import Causal
from distillkit_builtin.local.fast.trunk import FastTrunk
from distillkit_builtin.local.logprobs import token_logprobs
from distillkit_builtin.local.network import PromptAndResponse


@torch.inference_mode()
def read_logprobs(trunk: FastTrunk, items: Sequence[PromptAndResponse], shared: int) -> tuple[Tensor, Tensor]:
    """Float32 logprobs and the ids they are of, the items' end to end; all prompts begin with the same `shared` tokens.

    Sequences are padded on the right: causal attention never looks there.
    """
    device = trunk.network.device.device
    longest = max(map(len, items))
    cos, sin = trunk.rotary(longest)
    before: list[tuple[Tensor, Tensor]] = []
    if shared:
        start = torch.tensor(items[0].prompt_ids[:shared], device=device)
        trunk(start, cos[:shared], sin[:shared], Causal(shared, trunk.scale, before))
    rows = [torch.cat([torch.tensor(item.prompt_ids[shared:]), torch.tensor(item.response_ids)]) for item in items]
    ids = pad_sequence(rows, batch_first=True).to(device)
    count, length = ids.shape
    angles = [table[shared : shared + length].repeat(count, 1) for table in (cos, sin)]
    hidden = trunk(ids.flatten(), angles[0], angles[1], Causal(length, trunk.scale, before=before))
    where = torch.cat(
        [
            torch.arange(len(item.prompt_ids) - shared - 1, len(item) - shared - 1) + row * length
            for row, item in enumerate(items)
        ]
    ).to(device)
    scored = ids.flatten()[where + 1]
    return token_logprobs(trunk.network.head, hidden[where], scored), scored
