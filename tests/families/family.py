"""A tiny model of a family: what its config says beyond the sizes that all tiny models share."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

import transformers
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

SIZES: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": 259,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "sliding_window": 12,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        # Mixtures of experts, latent attention and sparse attention.
        "num_experts": 4,
        "num_local_experts": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "shared_expert_intermediate_size": 48,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "index_topk": 256,
        "index_head_dim": 16,
        "index_n_heads": 2,
        # Recurrent layers.
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    }
)
"""Of whatever reads text; a config takes of these what it has a field for. The window is shorter than any prompt."""
TOWER: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "embed_dim": 32,
        "image_size": 28,
        "patch_size": 14,
        "out_hidden_size": 64,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "d_model": 32,
    }
)
"""Of whatever reads images and sound, which nothing here does."""


@dataclass(frozen=True)
class Family:
    """One model type; nested dicts of `values` are configs within the config, such as `text_config`."""

    model_type: str
    values: Mapping[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    """The class that checkpoints of the family name; None: the one that transformers lists for the kind.

    A few name a class of code of their own, for which transformers loads one that it has.
    """
    kind: Literal["dense", "experts", "hybrid", "wrapper"] = "dense"
    variant: str | None = None
    """What sets it apart from the family's main model, where checkpoints of one model type differ by more than size."""

    @property
    def name(self) -> str:
        """Its key in the catalogue: the model type, with the variant."""
        return self.model_type if self.variant is None else f"{self.model_type}-{self.variant}"

    def config(self) -> PreTrainedConfig:
        """A new config with its class in `architectures`."""
        values = sized(CONFIG_MAPPING[self.model_type], self.values, SIZES)
        named = self.architecture or self.class_name
        return AutoConfig.for_model(self.model_type, **values, architectures=[named])

    @property
    def class_name(self) -> str:
        """The class of transformers that the family's checkpoints are loaded as."""
        if self.architecture is not None and hasattr(transformers, self.architecture):
            return self.architecture
        listed = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES if self.kind == "wrapper" else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        return listed[self.model_type]


def sized(kind: type[PreTrainedConfig], values: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The values over those of `sizes` that the config class has a field for, under the names of its fields.

    Nothing in it is shared with another config: some change their lists.
    """
    known = {each.name for each in fields(kind)}
    names = {name: name if name in known else kind.attribute_map.get(name, name) for name in sizes}
    whole = {own: sizes[name] for name, own in names.items() if own in known}
    # A config that only holds others has no width of its own.
    if kind.sub_configs and not known & {"hidden_size", "d_model"}:
        whole = {}
    for name, value in values.items():
        within = kind.sub_configs.get(name)
        if within is not None and isinstance(value, Mapping):
            nested = CONFIG_MAPPING[value["model_type"]] if "model_type" in value else within
            reads_text = "text" in name or "text_config" in nested.sub_configs or name == "decoder"
            value = sized(nested, value, SIZES if reads_text else TOWER)
        whole[name] = copy.deepcopy(value)
    return whole
