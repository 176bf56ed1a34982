"""The forward of packed rows by the model's own layers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._dynamo import mark_dynamic

from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse, ResponseStates
from distillkit_builtin.local.packing.compiled_layers import mark_token_dimension_dynamic
from distillkit_builtin.local.packing.packed_attention import AttentionCall, packed_attention
from distillkit_builtin.local.packing.packing import PackedRow


def packed_response_states(
    causal_lm: CausalLM, items: Sequence[PromptAndResponse], calls: list[AttentionCall] | None = None
) -> ResponseStates:
    """What the head reads of the items' responses, with gradient if enabled; `calls` as in `packed_hidden_states`."""
    row = PackedRow.of(items, causal_lm.device.device)
    return ResponseStates(packed_hidden_states(causal_lm, row, calls)[row.predicting], row.response_ids)


def packed_hidden_states(causal_lm: CausalLM, row: PackedRow, calls: list[AttentionCall] | None = None) -> Tensor:
    """The last hidden states [T, hidden]; `calls` gets what each layer asked of attention."""
    embedded = causal_lm.model.get_input_embeddings()(row.ids)
    if torch.is_grad_enabled() and embedded.is_leaf:
        # With a gradient, else a LoRA's first layer would be compiled on its own: its input alone has none. And no leaf
        # of autograd, which could not be scaled in place, as some models do: what is added costs no memory.
        embedded = embedded + embedded.new_zeros((), requires_grad=True)
    mark_token_dimension_dynamic(embedded, row.positions)
    mark_dynamic(row.ends, 0)
    mark_dynamic(row.key_ends, 0)
    with packed_attention(causal_lm):
        out = causal_lm.backbone(
            inputs_embeds=embedded,
            position_ids=row.positions,
            use_cache=False,
            cu_seq_lens_q=row.ends,
            cu_seq_lens_k=row.key_ends,
            max_length_q=row.longest,
            keys=row.keys,
            calls=calls,
        )
    hidden: Tensor = out.last_hidden_state
    return hidden[0]
