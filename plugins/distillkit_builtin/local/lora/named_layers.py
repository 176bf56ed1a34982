"""Names in `student.target_modules`: that each is of layers which a LoRA can be put on, or what is wrong with it."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from peft import LoraConfig
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
from transformers import PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.local.lora.decoder_layers import LayerKind, expert_parameters, has_experts
from distillkit_builtin.local.lora.idle_layers import idle_layers

REFUSED = "PEFT refuses them in models of this type"
CLOSE = 0.82
"""How alike a name must be that is meant: of `down_proj` and `o_proj` neither is the other mistyped."""
WHOLE = "all-linear"
"""PEFT's name for all linear layers, which is none of a layer."""


def require_layers(model: PreTrainedModel, target_modules: Sequence[str], kinds: Mapping[str, LayerKind]) -> None:
    """Raise InputError unless each name is of layers of the text decoder, all of which a LoRA can be put on.

    `kinds` are those of the linear layers of `model`, by name.
    """
    decoder = [name for name, kind in kinds.items() if kind == LayerKind.DECODER]
    unknown = [target for target in target_modules if not any(matches(name, target) for name in decoder)]
    for target in unknown:
        others = sorted({str(kind) for name, kind in kinds.items() if matches(name, target)})
        if others:
            raise InputError(
                f"student.target_modules: {target!r} names {' and '.join(others)}, which a LoRA is not put on here; "
                f"choose among {', '.join(_choice(model, decoder))}"
            )
    if unknown:
        raise InputError(f"student.target_modules: {_no_layers(model, unknown, kinds, _choice(model, decoder))}")
    for target in target_modules:
        refused = [name for name in decoder if matches(name, target) and is_refused(model, name)]
        if refused:
            raise InputError(
                f"student.target_modules: {target!r} ({refused[0]}, ...): {REFUSED} ({model.config.model_type}); "
                f"choose among {', '.join(_choice(model, decoder))}"
            )


def matches(name: str, target: str) -> bool:
    """Whether PEFT reads `target` in a list as (also) the layer or tensor `name`."""
    return name == target or name.endswith(f".{target}")


def is_refused(model: PreTrainedModel, name: str) -> bool:
    """Whether PEFT refuses this layer by the model's type, as it reads adapters too."""
    config = LoraConfig(target_modules=[name])
    try:
        _check_lora_target_modules_mamba(config, model, name.rpartition(".")[2])
    except ValueError:
        return True
    return False


def name_in_layer(name: str) -> str:
    """What the layers of a name's kind share: the last parts, up to a number that a name follows."""
    parts = name.split(".")
    named = max((i for i, part in enumerate(parts) if not part.isdigit()), default=0)
    numbers = [i for i, part in enumerate(parts[:named]) if part.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :] if numbers else parts)


def short_names(names: Collection[str]) -> list[str]:
    """How layers are called, each name once and in their order: the last part, with those before it if it is a number.

    `q_proj` of `model.layers.0.self_attn.q_proj`, `head.0` of `head.0`.
    """
    found = []
    for name in names:
        parts = name.split(".")
        named = max((i for i, part in enumerate(parts) if not part.isdigit()), default=0)
        found.append(".".join(parts[named:]))
    return list(dict.fromkeys(found))


def listed(words: Sequence[str], last: str = "and") -> str:
    """The words as a sentence has them."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]


def _choice(model: PreTrainedModel, decoder: Sequence[str]) -> list[str]:
    """The names that can be chosen."""
    idle = idle_layers(model.config) or {}
    return short_names([name for name in decoder if name not in idle and not is_refused(model, name)])


def _no_layers(
    model: PreTrainedModel, unknown: Sequence[str], kinds: Mapping[str, LayerKind], choice: Sequence[str]
) -> str:
    """What is wrong with names of no linear layer, and which there are."""
    modules = [name for name, _ in model.named_modules()]
    tensors = [name for name, _ in model.named_parameters()]
    found = {target: next((n for n in (*modules, *tensors) if matches(n, target)), None) for target in unknown}
    said = [f"{target!r} (it is {name})" if name else repr(target) for target, name in found.items()]
    close = [
        [] if name else get_close_matches(target.rpartition(".")[2], choice, 3, CLOSE) for target, name in found.items()
    ]
    near = [name for each in close for name in each]
    hint = f"it has {', '.join(choice)}"
    if WHOLE in unknown:
        hint = "leave student.target_modules out (null): then it is all linear layers of the text decoder"
    elif all(close):
        hint = f"did you mean {', '.join(dict.fromkeys(near))}"
    elif has_experts(model) and expert_parameters(model) and LayerKind.EXPERT not in kinds.values():
        hint += "; experts are adapted by student.experts: true, and routers are not"
    return f"no linear layer of {type(model).__name__} is called {listed(said, 'or')}; {hint}"
