"""How much recurrent layers keep of a sequence, found on the meta device: the same for every length."""

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from distillkit_builtin.local.model.model_cache import CacheKind, empty_cache
from distillkit_builtin.local.model_files.model_class import backbone


@torch.no_grad()
def state_numbers(model: PreTrainedModel) -> int:
    """The numbers that all recurrent layers of a model without data keep of one sequence; 0 where there are none.

    Layers ask tensors for values, which there are none of: experts, for the tokens that come to each. What was
    computed before is enough, since a model's recurrent layers are alike.
    """
    cache, decoder = empty_cache(model), backbone(model)
    layers = [layer for layer in cache.layers if isinstance(layer, LinearAttentionCacheLayerMixin)]
    if not layers:
        return 0
    ids = torch.ones(1, 2, dtype=torch.long, device="meta")
    with suppress(RuntimeError, NotImplementedError, ValueError, TypeError, IndexError):  # whatever a layer asks for
        decoder(input_ids=ids, use_cache=True, **{CacheKind.of(model).argument: cache})
    sizes = [sum(state.numel() for state in _states(layer)) for layer in layers]
    known = [size for size in sizes if size]
    return len(layers) * max(known, default=0)


def _states(layer: LinearAttentionCacheLayerMixin) -> Iterator[Tensor]:
    for states in (layer.conv_states, layer.recurrent_states):
        values = states.values() if isinstance(states, dict) else states
        yield from (state for state in values if isinstance(state, Tensor))
