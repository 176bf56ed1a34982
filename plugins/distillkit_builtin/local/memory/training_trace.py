"""The memory of a forward and backward pass, found by doing it on the meta device, where tensors hold no data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.lora.lora_placement import LayerOptions
from distillkit_builtin.local.memory.allocation_meter import AllocationMeter
from distillkit_builtin.local.model.attention_choice import attending_by
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse, ResponseStates
from distillkit_builtin.local.model.footprint import model_on_meta
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS
from distillkit_builtin.local.packing.packed_attention import SHORT, packed_attention
from distillkit_builtin.local.packing.packed_forward import packed_hidden_states
from distillkit_builtin.local.packing.packing import PackedRow
from distillkit_builtin.local.training.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.training.policy import Policy

META = torch.device("meta")
ATTENTION = "distillkit_counted"
"""The name of `_attend` among the attention functions of transformers."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a student is trained, as far as the memory of its passes depends on it."""

    source: str
    dtype: torch.dtype
    lora_rank: int
    """0: all weights."""
    packs: bool
    checkpoints: bool
    """Activations are recomputed."""
    target_modules: tuple[str, ...] | None = None
    """The layers of the LoRA, where they were chosen."""
    experts: bool = False
    head: bool = True
    """Whether the sampled tokens' logprobs are what is trained; False: what comes behind hidden states is left out."""


def traced_bytes(training: Training, items: Sequence[PromptAndResponse]) -> int | None:
    """Bytes at the peak of one micro-batch besides weights, gradients and optimizer; None if it cannot be traced.

    Some layers ask tensors for values, which there are none of: experts, for the tokens that come to each.

    Raises:
        InputError: if the student cannot be made as its options say.
    """
    try:
        policy = _policy(training)
        causal_lm = policy.causal_lm
        row = row_on_meta(items) if training.packs else None
        meter = AllocationMeter()
        short = row is not None and max(map(len, items)) <= SHORT
        with packed_attention(causal_lm) if short else _counted_attention(causal_lm), meter:
            for parameter in causal_lm.model.parameters():
                meter.ignore(parameter)
            states = causal_lm.response_states(items) if row is None else _packed_states(causal_lm, row, short=short)
            torch.autograd.backward((causal_lm.logprobs(states) if training.head else states.hidden).sum())
        return meter.peak
    except InputError:
        raise
    except MODEL_ERRORS:  # whatever a layer asks for
        return None


def _policy(training: Training) -> Policy:
    model = model_on_meta(training.source)
    kept = training.dtype if training.lora_rank else torch.float32
    for parameter in model.parameters():
        parameter.data = parameter.data.to(kept)
    model.requires_grad_(False)
    causal_lm = CausalLM(model, Device(META), training.dtype)
    with META:
        rank = training.lora_rank
        layers: LayerOptions = {"target_modules": training.target_modules, "experts": training.experts}
        policy = Policy.lora(causal_lm, rank, 1, 0.0, 0, **layers) if rank else Policy.full(causal_lm)
    if training.checkpoints:
        checkpoint_activations(model)
    for parameter in policy.trained.values():
        parameter.grad = torch.empty_like(parameter)  # counted with the optimizer
    return policy


def row_on_meta(items: Sequence[PromptAndResponse]) -> PackedRow:
    """A packed row as on the CPU, without data; what attention asks for values stays there."""
    row = PackedRow.of(items, torch.device("cpu"))
    moved: Mapping[str, Any] = {
        name: value.to(META)
        for name in ("ids", "positions", "keys", "predicting", "response_ids")
        if (value := getattr(row, name)) is not None
    }
    return replace(row, **moved)


def _packed_states(causal_lm: CausalLM, row: PackedRow, *, short: bool) -> ResponseStates:
    """What the head reads; attention over short sequences is a few plain products, and is traced as it is."""
    if short:
        hidden = packed_hidden_states(causal_lm, row)
    else:
        hidden = causal_lm.hidden_states(row.ids, position_ids=row.positions)[0]
    return ResponseStates(hidden[row.predicting], row.response_ids)


@contextmanager
def _counted_attention(causal_lm: CausalLM) -> Iterator[None]:
    """A context in which attention keeps what a fused kernel does: the meta device would compute all scores at once.

    Where transformers does so itself ("eager"), that is traced.
    """
    before = str(causal_lm.model.config.get_text_config()._attn_implementation)
    with attending_by(causal_lm.model, before if before == "eager" else ATTENTION):
        yield


class _Fused(torch.autograd.Function):
    """Attention that keeps its inputs and what it gave."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401 - torch's context
        mixed = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, mixed)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401 - torch's context
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **rest: object
) -> tuple[Tensor, None]:
    """What transformers calls: `query` [batch, heads, T, d], others with fewer heads; [batch, T, heads, d]."""
    mixed: Tensor = _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
    return mixed.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
