"""What one decoder layer is made of, found from the names and shapes of its modules.

Weights that read the same input are laid side by side in memory, and the model's parameters become views of that, so an
update of the model in place is an update of what is found here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig

from distillkit_builtin.local.fast.feed_forward import Experts, FeedForward, GatedLayer, SharedExpert
from distillkit_builtin.local.fast.projection import Projection, base_linear
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError, activation


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer: attention and a feed-forward part, with RMS norms before and behind either, where they are."""

    norm_before: Tensor | None
    """[hidden] of the norm of what the layer reads."""
    qkv: Projection
    query_norm: Tensor | None
    """[d] of a norm of each head, or [heads * d] of all heads together; as `key_norm`."""
    key_norm: Tensor | None
    out: Projection
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
    def of(cls, layer: nn.Module, config: PreTrainedConfig, *, adapted: bool) -> "LayerWeights":
        """A layer's; `adapted`: with the LoRA that is on it. Raises UnsupportedModelError where it has other parts."""
        attention = layer.get_submodule("self_attn")
        names = _names(attention, ["q_proj", "k_proj", "v_proj"], "qkv_proj")
        # Where something follows the feed-forward part, the norm behind attention is what its name says.
        behind = hasattr(layer, "post_feedforward_layernorm")
        scale = float(getattr(layer, "residual_multiplier", 1.0))
        return cls(
            norm_before=_norm(layer, "input_layernorm"),
            qkv=Projection.of(attention, names, adapted=adapted),
            query_norm=_norm(attention, "q_norm"),
            key_norm=_norm(attention, "k_norm"),
            out=Projection.of(attention, ["o_proj"], adapted=adapted),
            attention_scale=float(attention.scaling),  # type: ignore[arg-type]
            norm_behind_attention=_norm(layer, "post_attention_layernorm") if behind else None,
            norm_between=_norm(layer, "pre_feedforward_layernorm" if behind else "post_attention_layernorm"),
            feed_forward=_feed_forward(layer, config, adapted=adapted),
            norm_behind=_norm(layer, "post_feedforward_layernorm"),
            residual_scale=None if scale == 1.0 else scale,
        )


def _feed_forward(layer: nn.Module, config: PreTrainedConfig, *, adapted: bool) -> FeedForward:
    part = layer.get_submodule("block_sparse_moe" if hasattr(layer, "block_sparse_moe") else "mlp")
    if not hasattr(part, "experts"):
        return _gated_layer(part, config, adapted=adapted)
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
        gate = base_linear(part, "shared_expert_gate")
        if adapted and gate is not part.get_submodule("shared_expert_gate"):
            raise UnsupportedModelError("its adapter is on the gate of an expert too")
        expert = _gated_layer(part.get_submodule("shared_expert"), config, adapted=adapted)
        shared = SharedExpert(expert, gate.weight)
    normalized = bool(getattr(config, "norm_topk_prob", True))  # where a config does not say so, they always are
    return Experts(weight, gate_up, down, int(config.num_experts_per_tok), normalized, activation(config), shared)


def _gated_layer(part: nn.Module, config: PreTrainedConfig, *, adapted: bool) -> GatedLayer:
    names = _names(part, ["gate_proj", "up_proj"], "gate_up_proj")
    gate_up, down = (Projection.of(part, each, adapted=adapted) for each in (names, ["down_proj"]))
    if any(projection.bias is not None for projection in (gate_up, down)):
        raise UnsupportedModelError("its feed-forward layers have biases")
    return GatedLayer(gate_up, down, activation(config))


def _names(parent: nn.Module, names: Sequence[str], together: str) -> Sequence[str]:
    """Layers that read the same input; some models have them as one."""
    return [together] if hasattr(parent, together) else names


def _norm(parent: nn.Module, name: str) -> Tensor | None:
    return parent.get_submodule(name).get_parameter("weight") if hasattr(parent, name) else None
