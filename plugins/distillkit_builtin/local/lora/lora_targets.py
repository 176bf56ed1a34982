"""Which layers a LoRA is put on: named here, not by PEFT's "all-linear".

PEFT rewrites that name for mixtures of experts: experts and router are adapted then, and dense and shared layers are
not. Here it is the linear layers of the text decoder but the head, experts and routers, and by option the experts.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.local.lora.decoder_layers import (
    LayerKind,
    expert_parameters,
    has_experts,
    linear_ends,
    linear_kinds,
    tower_names,
)
from distillkit_builtin.local.lora.named_layers import (
    REFUSED,
    is_refused,
    listed,
    matches,
    name_in_layer,
    require_layers,
    short_names,
)
from distillkit_builtin.local.model_files.quantization import holds_numbers

ALONE = (("router",), ("vision tower",), ("audio tower",))
"""What is one thing, in the grammar of a message."""
OTHERWISE = "train all weights (student.lora_rank: 0), or another model"


@dataclass(frozen=True, slots=True)
class LoraSize:
    """How much a LoRA trains, and what takes it up."""

    trained: int
    """Numbers of the adapter."""
    linear_weights: int
    """Weights of the linear layers below it."""
    expert_weights: int
    """Weights of the experts below it."""


@dataclass(frozen=True, slots=True)
class LoraTargets:
    """What a LoRA is put on, by the names that it has in the model."""

    linears: tuple[str, ...]
    experts: tuple[str, ...]
    """Tensors of the experts' weights."""
    ends: int
    """Inputs and outputs of all of them: a LoRA has `rank` times as many numbers."""
    linear_weights: int
    expert_weights: int
    frozen: tuple[str, ...]
    """What else has weights, and stays as it is: experts, router, towers."""
    left_out: Mapping[str, str]
    """Layers that should have one and have none: the ends of their names, and why."""

    def size(self, rank: int) -> LoraSize:
        """With this rank."""
        return LoraSize(rank * self.ends, self.linear_weights, self.expert_weights)

    def describe(self, rank: int) -> str:
        """One line for `distillkit check`."""
        trained = self.size(rank).trained
        numbers = f"{trained / 1e6:,.0f} M" if trained >= 1e7 else f"{trained:,}"
        what = [_counted(self.linears, "linear layers"), _counted(self.experts, "tensors of experts")]
        said = f"the LoRA is on {' and '.join(filter(None, what))}, {numbers} numbers are trained"
        if self.frozen:
            said += f"; {listed(self.frozen)} {'is' if self.frozen in ALONE else 'are'} frozen"
        reasons = {
            reason: [name for name, why in self.left_out.items() if why == reason] for reason in self.left_out.values()
        }
        left_out = [f"{listed(names)}, as {reason}" for reason, names in reasons.items()]
        return f"{said}; left out: {', and '.join(left_out)}" if left_out else said

    def without(self, model: PreTrainedModel, lost: Collection[str], why: str) -> "LoraTargets":
        """The same but for the layers `lost`, which are left out for this reason."""
        kept = [name for name in self.linears if name not in lost]
        experts = [name for name in self.experts if name not in lost]
        left_out = {**self.left_out, **dict.fromkeys(_of_how_many(lost, [*self.linears, *self.experts]), why)}
        return _measured(model, kept, experts, self.frozen, left_out)


def find_targets(model: PreTrainedModel, target_modules: Sequence[str] | None, *, experts: bool) -> LoraTargets:
    """The layers of a model without adapters that a LoRA is put on.

    `target_modules` are names of layers, or ends of names, as PEFT reads a list; None: all of the text decoder.

    Raises:
        InputError: if a name matches none of these layers, or the experts cannot be adapted.
    """
    kinds = linear_kinds(model)
    wanted = [name for name, kind in kinds.items() if kind == LayerKind.DECODER]
    if target_modules is not None:
        require_layers(model, target_modules, kinds)
        wanted = [name for name in wanted if any(matches(name, target) for target in target_modules)]
    refused = [name for name in wanted if is_refused(model, name)]
    left_out = dict.fromkeys(sorted({name_in_layer(name) for name in refused}), REFUSED)
    wanted = [name for name in wanted if name not in set(refused)]
    frozen = tower_names(model, kinds)
    if not frozen and LayerKind.TOWER in kinds.values():
        frozen = [LayerKind.TOWER]
    if has_experts(model):
        frozen = [LayerKind.ROUTER, *frozen] if experts else [LayerKind.EXPERT, LayerKind.ROUTER, *frozen]
    odd = sorted({name_in_layer(name) for name, kind in kinds.items() if kind == LayerKind.OTHER})
    left_out |= dict.fromkeys(odd, "they give something else than a product")
    return _measured(model, wanted, _experts(model) if experts else (), tuple(map(str, frozen)), left_out)


def _counted(names: Sequence[str], what: str) -> str:
    """How many there are of something, and how they are called; nothing of none."""
    return f"{len(names)} {what} ({', '.join(short_names(names))})" if names else ""


def _of_how_many(lost: Collection[str], names: Collection[str]) -> list[str]:
    """The layers `lost` by the ends of their names, with how many of that kind they are where others stay."""
    gone, all_of_them = (Counter(map(name_in_layer, each)) for each in (lost, names))
    return [
        kind if count == all_of_them[kind] else f"{kind} in {count} of {all_of_them[kind]} layers"
        for kind, count in sorted(gone.items())
    ]


def _measured(
    model: PreTrainedModel,
    linears: Sequence[str],
    experts: Sequence[str],
    frozen: tuple[str, ...],
    left_out: Mapping[str, str],
) -> LoraTargets:
    ends = [linear_ends(model.get_submodule(name)) for name in linears]
    stacks = [model.get_parameter(name).shape for name in experts]
    return LoraTargets(
        linears=tuple(linears),
        experts=tuple(experts),
        ends=sum(map(sum, ends)) + sum(count * (one + other) for count, one, other in stacks),
        linear_weights=sum(inputs * outputs for inputs, outputs in ends),
        expert_weights=sum(stack.numel() for stack in stacks),
        frozen=frozen,
        left_out=left_out,
    )


def _experts(model: PreTrainedModel) -> tuple[str, ...]:
    """The tensors of all experts. Raises InputError if there are none that PEFT adapts expert by expert."""
    found = expert_parameters(model)
    name = type(model).__name__
    if not has_experts(model):
        raise InputError(f"student.experts: {name} is no mixture of experts; take false")
    held = sum(kind == LayerKind.EXPERT for kind in linear_kinds(model).values())
    if held or not found:
        raise InputError(
            f"student.experts: the experts of {name} are not kept in tensors [experts, outputs, inputs], which is "
            "all that a LoRA on experts can be put on; take false"
        )
    odd = [key for key, tensor in found.items() if not holds_numbers(tensor)]
    if odd:
        raise InputError(
            f"student.experts: the experts of {name} are quantized ({odd[0]}), which no LoRA can be put on; take "
            "false, or a checkpoint with weights in bfloat16 or float32"
        )
    return tuple(found)
