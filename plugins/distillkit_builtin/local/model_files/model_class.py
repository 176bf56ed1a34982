"""Which class of transformers a model is loaded as, and which part of it reads text.

The class named in `architectures` counts, if it computes next tokens: checkpoints of Qwen 3.5 and Llama 4 hold a model
with a vision tower, and as one for text alone the names of an adapter's tensors would be others than those that servers
of the checkpoint know.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names, missing_packages, one_line, to_install

KINDS: tuple[tuple[Any, Any], ...] = (
    (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
    (AutoModelForMultimodalLM, MODEL_FOR_MULTIMODAL_LM_MAPPING),
)
"""Auto classes, and which classes each has for a config; for text alone first: where `architectures` names none."""
OF_TEXT = ("ForCausalLM", "ForConditionalGeneration", "Model")
"""Ends of names of classes that compute next tokens, or whose head may be tied to their embeddings."""
MODEL_ERRORS = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, ImportError,
)  # fmt: skip
"""What a model's own code raises where it is given what it was not made for, or a device that it does not know.

InputError is one of them, being a ValueError, and is meant for the user: it is raised again before these are caught.
"""
ELSEWHERE = "choose a causal language model, or serve this one over HTTP"


def auto_class(config: PreTrainedConfig) -> Any:  # noqa: ANN401 - transformers has no public name for its type
    """The auto class of transformers that loads a model of this config.

    Raises:
        InputError: if transformers has no model of this kind that computes next tokens of a text, or if the config
            names a class that computes something else.
    """
    named = set(getattr(config, "architectures", None) or ())
    found = {kind: _class_names(mapping, config) for kind, mapping in KINDS}
    chosen = next((kind for kind, names in found.items() if named & names), None)
    _require_decoder_alone(config, causal=chosen is AutoModelForCausalLM)
    if not any(found.values()):
        raise InputError(f"transformers has no {config.model_type!r} model that computes next tokens; {ELSEWHERE}")
    other = [name for name in named if _is_known(name) and not name.endswith(OF_TEXT)]
    if chosen is None and other:
        raise InputError(
            f"its config.json says that it is a {first_names(other)}, which computes something else than next tokens "
            f"(a classifier, a reward model, an encoder): its head would be missing; {ELSEWHERE}"
        )
    return chosen or next(kind for kind, names in found.items() if names)


def _class_names(mapping: Any, config: PreTrainedConfig) -> set[str]:  # noqa: ANN401 - as above
    """What transformers has of one kind for this config."""
    if type(config) not in mapping:  # `get` answers also where its auto class would refuse
        return set()
    classes = mapping[type(config)]
    return {each.__name__ for each in (classes if isinstance(classes, list | tuple) else (classes,))}


def _is_known(name: str) -> bool:
    try:
        return hasattr(transformers, name)
    except ImportError:
        return False


def _require_decoder_alone(config: PreTrainedConfig, *, causal: bool) -> None:
    """Raise InputError for an encoder-decoder; `causal`: the config names the class of its decoder alone."""
    parts = (config, *(getattr(config, name, None) for name in ("text_config", "decoder")))
    if not causal and any(getattr(part, "is_encoder_decoder", False) for part in parts):
        raise InputError(
            f"it is an encoder-decoder ({config.model_type}), which reads a source text by one part and writes by "
            f"another; the local backend has decoders alone; {ELSEWHERE}"
        )


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of this config without data, on the meta device. Raises InputError if none can be built."""
    kind = auto_class(config)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = kind.from_config(config, trust_remote_code=False)
    except Exception as error:  # a model's class computes with what the config says, and raises whatever comes of it
        raise InputError(_cannot_be_built(config, error)) from error
    return model


def _cannot_be_built(config: PreTrainedConfig, error: Exception) -> str:
    packages = missing_packages(error)
    if packages:
        return f"no {config.model_type!r} model can be built, not for text alone either: {to_install(packages)}"
    return f"no model can be built from its config.json: {one_line(error)}"


def text_decoder(model: PreTrainedModel) -> PreTrainedModel:
    """The part of `model` that reads text, without head and, but for a few, without towers for pictures and sound.

    The innermost model of transformers that holds the token embeddings: `get_decoder` gives some with their head, and
    of some the head. Which weights inside it are of a tower, `text_parameters` knows.

    Raises:
        InputError: if no part holds them.
    """
    with suppress(NotImplementedError):  # of a model that has several, each with embeddings of its own
        embeddings = model.get_input_embeddings()
        holders = [part for part in _models(model) if any(module is embeddings for module in part.modules())]
        if holders:
            return holders[-1]
    raise InputError(f"a {type(model).__name__} has not one part that reads text; {ELSEWHERE}")


def language_model(model: PreTrainedModel) -> PreTrainedModel:
    """The part of `model` that computes logits of a text: token embeddings, decoder and head; mostly all of it."""
    decoder = text_decoder(model)
    parts = [part for part in _models(model) if part.get_output_embeddings() is not None]
    return next((part for part in reversed(parts) if decoder in _models(part)), model)


def text_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """What computes the next tokens of a text, by name: decoder and head, tied weights once.

    All parameters of a model for text alone; of others not those of the towers, which text never goes through.
    """
    decoder, head = text_decoder(model), language_model(model).get_output_embeddings()
    inside = {id(parameter) for part in (decoder, head) if part is not None for parameter in part.parameters()}
    inside -= {id(parameter) for tower in towers(decoder) for parameter in tower.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in inside}


def towers(decoder: PreTrainedModel) -> list[nn.Module]:
    """Children of a text decoder that hold models of their own: they read pictures and sound."""
    return [child for child in decoder.children() if _models(child)]


def backbone(model: PreTrainedModel) -> nn.Module:
    """What gives the hidden states of `model`: all of it but the head."""
    inner = language_model(model)
    found: nn.Module = inner.base_model
    return found if found is not inner else text_decoder(model)


def require_text_alone(model: PreTrainedModel) -> None:
    """Raise InputError if the model, on the meta device, cannot be called with a text alone: it wants a picture too.

    What it asks its tensors for, which have no values there, is no fault.
    """
    try:
        language_model(model)(input_ids=torch.ones(1, 2, dtype=torch.long, device="meta"), use_cache=False)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"a {type(model).__name__} cannot be computed from a text alone: {one_line(error)}; {ELSEWHERE}"
        ) from error
    except (RuntimeError, NotImplementedError, IndexError):  # such as how many tokens come to an expert
        return


@contextmanager
def computable(model: PreTrainedModel) -> Iterator[None]:
    """A context for the first computations of a model. Raises InputError for whatever its own code runs into."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except MODEL_ERRORS as error:
        raise InputError(
            f"{type(model).__name__} cannot be computed by the local backend: {one_line(error)}; {ELSEWHERE}"
        ) from error


def _models(model: nn.Module) -> list[PreTrainedModel]:
    """Those that it is made of, from the outside to the inside, itself the first."""
    return [module for module in model.modules() if isinstance(module, PreTrainedModel)]
