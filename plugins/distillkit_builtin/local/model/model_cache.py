"""What a model keeps of a sequence that it has read: keys and values, states of recurrent layers, or both.

transformers has one cache for most architectures. A few have a class of their own, which the backbone's forward names
in its annotation; and some keep something else, which no cache of transformers holds.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast, get_args, get_origin

from torch import LongTensor, Tensor
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from distillkit.errors import InputError
from distillkit_builtin.local.model_files.model_class import backbone, language_model
from distillkit_builtin.local.model_files.model_config import declared_text_config

ARGUMENTS = ("cache", "past_key_values", "cache_params")
"""How a backbone's forward calls its cache; transformers renamed the argument in 5.x."""


@dataclass(frozen=True, slots=True)
class CacheKind:
    """Which cache a backbone takes."""

    argument: str
    """The name of the argument that takes it."""
    own: type[DynamicCache] | None
    """The backbone's own class; None: transformers' DynamicCache, with layers as the config says."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> "CacheKind":
        """By the signature of the backbone's forward.

        Raises:
            InputError: if it takes no cache of transformers.
        """
        decoder = backbone(model)
        known = inspect.signature(decoder.forward).parameters
        if known.keys() == {"args", "kwargs"}:  # it hands everything on
            known = inspect.signature(language_model(model).forward).parameters
        name = next((name for name in ARGUMENTS if name in known), None)
        kinds = [] if name is None else list(_named_classes(known[name].annotation))
        inside = any(hasattr(layer, "_setup_cache") for layer in decoder.modules())  # in the layers themselves
        own_form = inside or name is None or _is_a_dict(known[name].annotation)
        if name is None or own_form or not all(issubclass(kind, Cache) for kind in kinds):
            raise InputError(
                f"{type(model).__name__} takes no cache of transformers (it keeps nothing of what it has read, or in a "
                "form of its own), so the local backend cannot sample from it; serve it over HTTP instead"
            )
        own = [kind for kind in kinds if issubclass(kind, DynamicCache) and kind is not DynamicCache]
        return cls(name, own[0] if own else None)

    def new(self, config: PreTrainedConfig) -> DynamicCache:
        """An empty cache; `config` is of the text decoder."""
        if self.own is None:
            return DynamicCache(config=config)
        return self.own(config=config) if "config" in inspect.signature(self.own).parameters else self.own()


def empty_cache(model: PreTrainedModel) -> DynamicCache:
    """A new cache of the model, which may have no data.

    Raises:
        InputError: if it keeps nothing in one, or what it keeps depends on which tokens are a prompt's.
    """
    kind, config, name = CacheKind.of(model), declared_text_config(model.config), type(model).__name__
    if kind.own is None and getattr(config, "num_hidden_layers", None) is None:
        raise InputError(
            f"{name} is made of several models with layers of their own, for which transformers makes no cache, so the "
            "local backend cannot sample from it; serve it over HTTP instead"
        )
    cache = kind.new(config)
    if any(hasattr(layer, "prefill_length") for layer in cache.layers):
        raise InputError(
            f"{name} forgets what it has sampled, and nothing of its prompt (reference_sliding_attention): a token's "
            "logprob depends on where the prompt ended, so sampler, teacher and trainer would not compute the same; "
            "choose another model"
        )
    return cache


def select_rows(cache: DynamicCache, index: Tensor) -> None:
    """Let `cache` hold the rows `index` [n] of those that it holds: fewer, in another order, one several times."""
    cache.reorder_cache(cast(LongTensor, index))
    states = getattr(cache, "linear_cache", None)  # beside the layers, by an architecture with a class of its own
    if states is not None:
        setattr(cache, "linear_cache", [s[index] if isinstance(s, Tensor) else s for s in states])  # noqa: B010


def layers_with_keys(cache: DynamicCache, layers: int) -> int:
    """How many of a model's `layers` keep keys and values of every token."""
    kept = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    return len(kept) if cache.layers else layers


def has_states(cache: Cache) -> bool:
    """Whether layers keep anything but keys and values, token by token."""
    known = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    return type(cache) is not DynamicCache or any(type(layer) not in known for layer in cache.layers)


def _is_a_dict(annotation: object) -> bool:
    """Whether what is kept is said to be no cache: behind it, the whole sequence is to be given again."""
    return any((get_origin(kind) or kind) is dict for kind in (annotation, *get_args(annotation)))


def _named_classes(annotation: object) -> Iterator[type]:
    """The caches in an annotation."""
    for kind in get_args(annotation) or (annotation,):
        if isinstance(kind, type) and kind.__name__.endswith("Cache"):
            yield kind
