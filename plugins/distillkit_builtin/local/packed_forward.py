"""The forward of packed rows by the model's own layers, and whether it gives what single sequences give."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch._dynamo import mark_dynamic

from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse, ResponseStates
from distillkit_builtin.local.compiled_layers import mark_token_dimension_dynamic
from distillkit_builtin.local.device import autocast
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError, require_supported, windows
from distillkit_builtin.local.packed_attention import packed_attention, varlen_attention
from distillkit_builtin.local.packing import PackedRow

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""How far packed and padded hidden states may be apart, as a share of their norm."""


def packed_response_states(causal_lm: CausalLM, items: Sequence[PromptAndResponse]) -> ResponseStates:
    """What the head reads of the items' responses; with gradient if enabled."""
    row = PackedRow.of(items, causal_lm.device.device)
    return ResponseStates(packed_hidden_states(causal_lm, row)[row.predicting], row.response_ids)


def packed_hidden_states(causal_lm: CausalLM, row: PackedRow) -> Tensor:
    """The last hidden states [T, hidden]."""
    embedded = causal_lm.model.get_input_embeddings()(row.ids)
    if torch.is_grad_enabled() and not embedded.requires_grad:
        embedded.requires_grad_()  # else a LoRA's first layer would be compiled on its own: its input alone has none
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
        )
    hidden: Tensor = out.last_hidden_state
    return hidden[0]


def require_packable(causal_lm: CausalLM) -> None:
    """Raise UnsupportedModelError, saying why, unless packed rows give on this device what single sequences give."""
    config = causal_lm.model.config.get_text_config()
    require_supported(config)
    if any(windows(config)):
        raise UnsupportedModelError("its layers attend to a sliding window")
    if causal_lm.dtype not in TOLERANCE:
        raise UnsupportedModelError(f"packing was never tried in {causal_lm.dtype}")
    kind = causal_lm.device.device.type
    if kind not in ("cuda", "cpu"):
        raise UnsupportedModelError(f"packing was never tried on {kind}")
    if kind == "cuda" and varlen_attention is None:
        raise UnsupportedModelError(f"PyTorch {torch.__version__} has no attention for packed sequences of this kind")
    if kind == "cuda" and causal_lm.dtype == torch.float32:
        raise UnsupportedModelError("FlashAttention does not compute in float32")
    try:
        with autocast(causal_lm.device.device, causal_lm.dtype):
            difference = _difference(causal_lm)
    except (RuntimeError, ValueError) as error:  # what PyTorch raises of shapes and devices that a kernel does not know
        raise UnsupportedModelError(
            f"packed sequences cannot be computed here: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    if not difference <= TOLERANCE[causal_lm.dtype]:
        raise UnsupportedModelError(
            f"its packed hidden states are {difference:.2g} of their norm away from the padded ones"
        )


@torch.no_grad()
def _difference(causal_lm: CausalLM) -> float:
    """The distance between packed and single hidden states, as a share of their norm; two of three share a prompt."""
    count = len(causal_lm.model.get_input_embeddings().get_parameter("weight"))
    ids = np.random.default_rng(0).integers(0, count, 30)
    items = [PromptAndResponse(ids[:8], ids[8:11]), PromptAndResponse(ids[12:21], ids[21:23])]
    items.append(PromptAndResponse(ids[:8], ids[23:28]))
    single = torch.cat([_single_hidden_states(causal_lm, item) for item in items]).float()
    packed = packed_response_states(causal_lm, items).hidden.float()
    return float((packed - single).norm() / single.norm())


def _single_hidden_states(causal_lm: CausalLM, item: PromptAndResponse) -> Tensor:
    """The hidden states [R, hidden] that predict the item's response, by the model's own forward."""
    ids = np.concatenate([item.prompt_ids, item.response_ids[:-1]])
    hidden = causal_lm.hidden_states(torch.from_numpy(ids)[None].to(causal_lm.device.device))
    return hidden[0, len(item.prompt_ids) - 1 :]
