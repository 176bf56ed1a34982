"""Which class of transformers a model is loaded as, and where its text decoder is.

The class named in `architectures` counts, if it computes next tokens: checkpoints of Qwen 3.5 and Llama 4 hold a model
with a vision tower, and as one for text alone the names of an adapter's tensors would be others than those that servers
of the checkpoint know.
"""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, PreTrainedConfig, PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.file_errors import one_line

KINDS: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForMultimodalLM)
"""For text alone first: where `architectures` names no class of either."""


def auto_class(config: PreTrainedConfig) -> Any:  # noqa: ANN401 - transformers has no public name for its type
    """The auto class of transformers that loads a model of this config.

    Raises:
        InputError: if transformers has no model of this kind that computes next tokens of a text.
    """
    named = set(getattr(config, "architectures", None) or ())
    found = [kind for kind in KINDS if type(config) in kind._model_mapping]
    for kind in found:
        if named & {each.__name__ for each in _classes(kind, config)}:
            return kind
    if not found:
        raise InputError(
            f"transformers has no model of type {config.model_type!r} that computes the next tokens of a text alone; "
            "choose another, or serve this one over HTTP"
        )
    return found[0]


def _classes(kind: Any, config: PreTrainedConfig) -> tuple[type[PreTrainedModel], ...]:  # noqa: ANN401 - as above
    classes = kind._model_mapping[type(config)]
    return tuple(classes) if isinstance(classes, list | tuple) else (classes,)


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of this config without data, on the meta device. Raises InputError if none can be built."""
    kind = auto_class(config)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = kind.from_config(config, trust_remote_code=False)
    except Exception as error:  # a model's class computes with what the config says, and raises whatever comes of it
        raise InputError(f"no model can be built from its config.json: {one_line(error)}") from error
    return model


def text_decoder(model: PreTrainedModel) -> torch.nn.Module:
    """The part of `model` that reads text, without head and without towers for pictures and sound."""
    decoder: torch.nn.Module = model.get_decoder()
    return decoder


def backbone(model: PreTrainedModel) -> torch.nn.Module:
    """What gives the hidden states of `model`: all of it but the head."""
    found: torch.nn.Module = model.base_model
    return found if found is not model else text_decoder(model)
