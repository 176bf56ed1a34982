"""Layers that count positions by what the cache holds, and so count the padding before a prompt as tokens.

The backend gives positions that begin behind the padding. A layer that asks the cache instead computes the same up to
a length at which it changes its scale (Llama 4: 8,192), which no short sequence comes to. So the cache is made to
answer its layers as if that much padding stood before the prompt.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn
from transformers import DynamicCache

PADDING = 2**20
"""Tokens; more than any layer lets pass without a change of scale."""


@dataclass(slots=True)
class CacheQuestions:
    """What layers asked a cache."""

    count: int = 0
    """How often it was asked how much it holds."""


@contextmanager
def padding_claimed(backbone: nn.Module, cache: DynamicCache, padding: int) -> Iterator[CacheQuestions]:
    """Within, `cache` tells the layers of `backbone` that `padding` tokens more stand before those that it holds.

    What the backbone itself asks, outside of its layers, is answered as ever: masks are made there.
    """
    questions, length_of, sizes_of = CacheQuestions(), cache.get_seq_length, cache.get_mask_sizes
    entered: list[nn.Module] = []

    def length(*args: int, **named: int) -> int:
        questions.count += bool(entered)
        return length_of(*args, **named) + padding * bool(entered)

    def sizes(*args: int, **named: int) -> tuple[int, int]:
        held, offset = sizes_of(*args, **named)
        return held, offset + padding * bool(entered)

    layers = [module for module in backbone.modules() if hasattr(module, "layer_idx")]
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs: entered.append(layer)) for layer in layers]
    hooks += [layer.register_forward_hook(lambda *_: entered.pop() and None, always_call=True) for layer in layers]
    vars(cache).update(get_seq_length=length, get_mask_sizes=sizes)
    try:
        yield questions
    finally:
        for name in ("get_seq_length", "get_mask_sizes"):
            vars(cache).pop(name)
        for hook in hooks:
            hook.remove()
