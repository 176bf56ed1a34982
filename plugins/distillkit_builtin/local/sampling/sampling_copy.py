"""The copy of the student's model that samples: what trains and what samples share no tensor that training changes.

Where a LoRA can be added to the weights of its layer, also of experts, the copy has the sum, and no adapter: a sampled
token costs what one of the base does. Other adapters (on layers in few bits, on embeddings, whatever PEFT adds) stay in
the copy as they are: it has its own adapter tensors, and shares the frozen base. So do LoRAs on linear layers where
memory for their sums is missing: then the base's weights are there once. Nothing is made for one kind of layer: what is
trained is found by its tensors, and so is proved what the copy shares.
"""

import copy
from collections import Counter
from collections.abc import Iterator

import torch
from peft.tuners.lora import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from distillkit.errors import InputError
from distillkit_builtin.local.lora.lora import ADAPTER, AddedWeight, added_weights, lora_layers
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.sharding import full_tensor

BEFORE = 0.25
"""How large a LoRA's numbers are before the first refresh: what it adds is about as large as what weights give."""


class SamplingCopy:
    """A model in the compute dtype that follows the student's at each `refresh`.

    To be made before the student's model is sharded or compiled. It exists only where the student samples by itself.
    """

    def __init__(self, trained: CausalLM, *, merges: bool = True) -> None:
        """Of `trained`; its weights are the student's only after the first `refresh` where it is a LoRA.

        `merges`: a LoRA is added to the weights of linear layers; else it stays beside them.

        Raises:
            InputError: if training would change what the copy samples from.
        """
        self.trained = trained
        self.causal_lm = _full_copy(trained) if trained.adapter is None else _merged_copy(trained, merges=merges)
        # Found once: to walk through all modules took longer at each refresh than to add.
        copied = self.causal_lm.model
        self._merged = [
            (weight, copied.get_submodule(weight.layer).get_parameter(weight.parameter))
            for weight in _merged_weights(trained.model, merges=merges)
        ]
        self._followed = _followed(copied, trained.model)
        self._scales = {} if merges else _scales(trained.model)
        if not merges:
            _prepare_snapshots(self.causal_lm)
        require_isolated(self.causal_lm.model, trained.model)

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the copy to the current weights: of a LoRA `W + scaling * B A`, added in float32.

        Where the weights are sharded, every rank must call this at the same time.
        """
        copied, trained = self.causal_lm.model, self.trained.model
        if self.trained.adapter is None:
            for ours, theirs in zip(copied.parameters(), trained.parameters(), strict=True):
                ours.copy_(full_tensor(theirs))
            return
        for weight, target in self._merged:
            target.copy_(weight.merged())
        for name, ours in self._followed:
            theirs = trained.get_parameter(name)
            ours.copy_(theirs * self._scales[name] if name in self._scales else theirs)


def _full_copy(source: CausalLM) -> CausalLM:
    """Of all parameters; buffers stay as they are: rotary frequencies need float32."""
    copies = {id(p): nn.Parameter(p.detach().to(source.dtype, copy=True), False) for p in source.model.parameters()}
    return source.of_copy(copy.deepcopy(source.model, dict(copies)))


def _merged_weights(model: nn.Module, *, merges: bool) -> Iterator[AddedWeight]:
    """The weights that a copy has the sums of: where linear layers are not merged, those of experts."""
    return (weight for weight in added_weights(model) if merges or isinstance(weight.adapter, ParamWrapper))


def _followed(copied: nn.Module, trained: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters of adapters that stay in a copy, by their names in both."""
    changed = {name for name, parameter in trained.named_parameters() if parameter.requires_grad}
    return [(name, parameter) for name, parameter in copied.named_parameters() if name in changed]


def _scales(model: nn.Module) -> dict[str, float]:
    """Of each LoRA that stays beside its weight, by the name of the matrix that is scaled in training."""
    return {f"{name}.lora_B.{ADAPTER}.weight": layer.scaling[ADAPTER] for name, layer in lora_layers(model)}


@torch.no_grad()
def _prepare_snapshots(causal_lm: CausalLM) -> None:
    """LoRAs that stay beside their weights, as training rounds them: in the compute dtype, the second one scaled.

    Until the first refresh they are no zeros: whether they are computed is proved before that.
    """
    for _, layer in lora_layers(causal_lm.model):
        down, up = (each[ADAPTER].get_parameter("weight") for each in (layer.lora_A, layer.lora_B))
        for parameter in (down, up):
            parameter.data = parameter.data.to(causal_lm.dtype)
        if not up.is_meta:
            up.normal_(0, BEFORE, generator=torch.Generator(up.device).manual_seed(0))
        layer.scaling[ADAPTER] = 1.0


def _merged_copy(source: CausalLM, *, merges: bool) -> CausalLM:
    """Without those adapter layers that can be merged; it shares every tensor that the LoRA does not change.

    A weight that several layers share gets a sum of its own in each: each has a LoRA of its own, or none.
    """
    merged = {id(weight.base()) for weight in _merged_weights(source.model, merges=merges)}
    shared = {id(frozen): frozen for frozen in _frozen(source.model) if id(frozen) not in merged}
    model = copy.deepcopy(source.model, dict(shared))
    used = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for weight in list(_merged_weights(model, merges=merges)):
        if used[id(weight.base())] > 1:
            own = nn.Parameter(weight.base().detach().clone(), requires_grad=False)
            setattr(weight.adapter.get_base_layer(), weight.parameter, own)
        model.set_submodule(weight.layer, weight.adapter.get_base_layer())
    model.requires_grad_(False)
    return source.of_copy(model)


def _frozen(model: nn.Module) -> Iterator[Tensor | nn.Module]:
    """What training does not change: parameters, buffers that are part of the weights, and whole quantized layers.

    Buffers that are no weights are computed, some anew at every call (rotary frequencies): each model has its own.
    """
    for module in model.modules():
        buffers = [
            b for name, b in module.named_buffers(recurse=False) if name not in module._non_persistent_buffers_set
        ]
        tensors = [*(p for p in module.parameters(recurse=False) if not p.requires_grad), *buffers]
        yield from tensors
        quantized = any(not tensor.is_floating_point() and tensor.dtype != torch.bool for tensor in tensors)
        if quantized and not any(module.children()) and not any(p.requires_grad for p in module.parameters()):
            yield module  # what it knows of its weight is in attributes, and moves there at its first call


def require_isolated(copied: nn.Module, trained: nn.Module) -> None:
    """Raise InputError, naming the layer, if `copied` holds a tensor or an adapter layer that training changes."""
    live = {_storage(parameter) for parameter in trained.parameters() if parameter.requires_grad}
    live.discard(0)  # of what has no data, as on the meta device
    adapters = {id(m) for m in trained.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)}
    for name, module in copied.named_modules():
        if id(module) in adapters or any(_storage(tensor) in live for tensor in _held_tensors(module)):
            raise InputError(
                f"the student's layer {name!r} ({type(module).__name__}) would be trained and sampled from at once, so "
                "completions would not be of the version that they name; take another student.sampler, and please "
                "report the architecture"
            )


def _held_tensors(module: nn.Module) -> Iterator[Tensor]:
    """A module's own parameters and buffers, and tensors that it has as plain attributes."""
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)
    for value in vars(module).values():
        values = value if isinstance(value, list | tuple) else [value]
        yield from (each for each in values if isinstance(each, Tensor))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
