"""What one decoder layer is made of, found from the names and shapes of its modules.

Weights that read the same input are laid side by side in memory, and the model's parameters become views of that, so an
update of the model in place is an update of what is found here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig

from distillkit_builtin.local.fast.feed_forward import Experts, FeedForward, GatedLayer, SharedExpert
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError, activation


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer: attention and a feed-forward part, with RMS norms before and behind either, where they are."""

    norm_before: Tensor | None
    """[hidden] of the norm of what the layer reads."""
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    """[d] of a norm of each head, or [heads * d] of all heads together; as `key_norm`."""
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    attention_scale: float
    """What scores are multiplied by."""
    norm_behind_attention: Tensor | None
    norm_between: Tensor | None
    """Of what the feed-forward part reads."""
    feed_forward: FeedForward
    norm_behind: Tensor | None
    """Of what the feed-forward part gives."""
    residual_scale: float | None
    """What either part is multiplied by before it is added; None for 1."""

    @classmethod
    def of(cls, layer: nn.Module, config: PreTrainedConfig) -> "LayerWeights":
        """A layer's; raises UnsupportedModelError where it has other parts."""
        attention = layer.get_submodule("self_attn")
        qkv, out = _projections(attention, ["q_proj", "k_proj", "v_proj"], "qkv_proj"), _linear(attention, "o_proj")
        biases = [linear.bias for linear in qkv]
        if None in biases and any(bias is not None for bias in biases):
            raise UnsupportedModelError("some of its query, key and value projections have biases, some not")
        # Where something follows the feed-forward part, the norm behind attention is what its name says.
        behind = hasattr(layer, "post_feedforward_layernorm")
        scale = float(getattr(layer, "residual_multiplier", 1.0))
        return cls(
            norm_before=_norm(layer, "input_layernorm"),
            qkv=side_by_side([linear.weight for linear in qkv]),
            qkv_bias=None if None in biases else side_by_side(biases),
            query_norm=_norm(attention, "q_norm"),
            key_norm=_norm(attention, "k_norm"),
            out=out.weight,
            out_bias=out.bias,
            attention_scale=float(attention.scaling),  # type: ignore[arg-type]
            norm_behind_attention=_norm(layer, "post_attention_layernorm") if behind else None,
            norm_between=_norm(layer, "pre_feedforward_layernorm" if behind else "post_attention_layernorm"),
            feed_forward=_feed_forward(layer, config),
            norm_behind=_norm(layer, "post_feedforward_layernorm"),
            residual_scale=None if scale == 1.0 else scale,
        )


def _feed_forward(layer: nn.Module, config: PreTrainedConfig) -> FeedForward:
    part = layer.get_submodule("block_sparse_moe" if hasattr(layer, "block_sparse_moe") else "mlp")
    if not hasattr(part, "experts"):
        return _gated_layer(part, config)
    router, experts = part.get_submodule("router" if hasattr(part, "router") else "gate"), part.get_submodule("experts")
    weight = router.get_parameter("weight")
    gate_up, down = (experts.get_parameter(name) for name in ("gate_up_proj", "down_proj"))
    count, hidden = weight.shape
    if set(dict(experts.named_parameters())) != {"gate_up_proj", "down_proj"} or gate_up.dtype != weight.dtype:
        raise UnsupportedModelError("its experts have other weights than gates, up and down projections")
    if down.shape != (count, hidden, gate_up.shape[1] // 2) or gate_up.shape[2] != hidden:
        raise UnsupportedModelError(f"its experts' weights have the shapes {(*gate_up.shape,)} and {(*down.shape,)}")
    if not hasattr(functional, "grouped_mm"):
        raise UnsupportedModelError("this version of PyTorch has no product of groups, which its experts need")
    shared = None
    if hasattr(part, "shared_expert"):
        gate = _linear(part, "shared_expert_gate").weight
        shared = SharedExpert(_gated_layer(part.get_submodule("shared_expert"), config), gate)
    normalized = bool(getattr(config, "norm_topk_prob", True))  # where a config does not say so, they always are
    return Experts(weight, gate_up, down, int(config.num_experts_per_tok), normalized, activation(config), shared)


def _gated_layer(part: nn.Module, config: PreTrainedConfig) -> GatedLayer:
    gate_up, down = _projections(part, ["gate_proj", "up_proj"], "gate_up_proj"), _linear(part, "down_proj")
    if any(linear.bias is not None for linear in (*gate_up, down)):
        raise UnsupportedModelError("its feed-forward layers have biases")
    return GatedLayer(side_by_side([linear.weight for linear in gate_up]), down.weight, activation(config))


def _projections(parent: nn.Module, names: Sequence[str], together: str) -> list[nn.Linear]:
    """Layers that read the same input; some models have them as one."""
    return [_linear(parent, name) for name in ([together] if hasattr(parent, together) else names)]


def _linear(parent: nn.Module, name: str) -> nn.Linear:
    """The layer itself, also where a LoRA is wrapped around it."""
    module = parent.get_submodule(name)
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if type(base) is not nn.Linear:
        raise UnsupportedModelError(f"{name} is a {type(base).__name__}")
    return base


def _norm(parent: nn.Module, name: str) -> Tensor | None:
    return parent.get_submodule(name).get_parameter("weight") if hasattr(parent, name) else None


def side_by_side(parameters: Sequence[Tensor]) -> Tensor:
    """One tensor with all rows of `parameters`, which become views of it, unless they are that already."""
    first = parameters[0].data
    if not _lie_side_by_side(parameters):
        whole = torch.cat([parameter.data for parameter in parameters])
        for parameter, rows in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
            parameter.data = rows
        return whole
    rows = sum(map(len, parameters))
    return first.as_strided((rows, *first.shape[1:]), first.stride())


def _lie_side_by_side(parameters: Sequence[Tensor]) -> bool:
    storages = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    ends = [parameter.data_ptr() + parameter.numel() * parameter.element_size() for parameter in parameters]
    follow = all(p.data_ptr() == end for p, end in zip(parameters[1:], ends, strict=False))
    return len(storages) == 1 and follow and all(parameter.is_contiguous() for parameter in parameters)
