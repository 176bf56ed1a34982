"""PEFT adapters that stand in a directory: put onto a model whole, or not at all, and merged into it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names, one_line
from distillkit_builtin.local.lora.lora import ADAPTER
from distillkit_builtin.local.model_files.model_class import language_model
from distillkit_builtin.local.model_files.weight_files import adapter_file, stored_tensors
from distillkit_builtin.model_source import ADAPTER_CONFIG, read_adapter_config

MERGED_APART = 1e-3
"""The most by which a merged model's logits may differ from those with the adapter beside it, as a share of their norm.
Rounding in float32 gives 1e-6."""


def read_adapter(folder: Path) -> PeftConfig:
    """An adapter's config. Raises InputError if PEFT does not know it, or it cannot be merged into a model."""
    with _adapter_errors(folder):
        config: PeftConfig = PeftConfig.from_pretrained(str(folder))
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(PeftType(config.peft_type)) if config.peft_type else None
    if not hasattr(tuner, "merge_and_unload") or getattr(config, "alora_invocation_tokens", None):
        kind = getattr(config.peft_type, "value", config.peft_type)
        kind = f"LoRA that tokens activate ({kind})" if getattr(config, "alora_invocation_tokens", None) else kind
        raise InputError(
            f"the adapter in {folder} is a {kind}, which cannot be merged into its model's weights; serve it over HTTP"
        )
    unknown = [name for name, value in read_adapter_config(folder).items() if value and not hasattr(config, name)]
    if unknown:
        raise InputError(
            f"{folder / ADAPTER_CONFIG} has keys that the installed PEFT does not know and would leave out: "
            f"{', '.join(unknown)}; install the version that it was made with, or take them out"
        )
    return config


def stored_adapter(folder: Path) -> dict[str, Tensor]:
    """An adapter's tensors without data, from the file's header. Raises InputError if it is not there or not whole."""
    stored = stored_tensors([adapter_file(folder)])
    return {name: torch.empty(tensor.shape, device="meta") for name, tensor in stored.items()}


def loaded_adapter(folder: Path) -> dict[str, Tensor]:
    """An adapter's tensors. Raises InputError if they cannot be read."""
    stored_adapter(folder)  # whose errors say more
    with _adapter_errors(folder):
        tensors = load_file(adapter_file(folder))
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(f"the tensor {name} of {adapter_file(folder)} holds numbers that are not finite")
    return tensors


def put_adapter(
    model: PreTrainedModel,
    config: PeftConfig,
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    on_cpu: bool = False,
    place: Callable[[PreTrainedModel, PeftConfig], PeftModel] | None = None,
) -> PeftModel:
    """`model` with an adapter on it that has all these tensors, and no other.

    `on_cpu`: the adapter has data there, though the model is on the meta device. `place` puts it on the model, to be
    trained; None: PEFT does, frozen.

    Raises:
        InputError: if a tensor fits no layer of the model, or a layer gets none. PEFT itself only warns of it.
    """
    config.inference_mode = place is None
    config.task_type = "CAUSAL_LM"
    config.base_model_name_or_path = model.name_or_path
    with _adapter_errors(folder), torch.random.fork_rng():
        adapted: PeftModel = get_peft_model(model, config) if place is None else place(model, config)
        if on_cpu:
            _give_data(adapted)
        result = set_peft_model_state_dict(adapted, dict(tensors), adapter_name=ADAPTER)
        lacking, superfluous = cast(tuple[list[str], list[str]], result)
    _require_all(model, folder, [name for name in lacking if ADAPTER in name.split(".")], superfluous)
    return adapted


def _require_all(model: PreTrainedModel, folder: Path, missing: Sequence[str], superfluous: Sequence[str]) -> None:
    """Raise InputError if adapter layers of `model` got no tensor, or tensors of the adapter no layer."""
    problems = [
        f"{what}: {first_names(names)}"
        for what, names in (("fits nothing in the model", superfluous), ("is not in the adapter's file", missing))
        if names
    ]
    if problems:
        raise InputError(
            f"the adapter in {folder} is not one of {type(model).__name__} as {model.name_or_path!r} is. "
            f"What {'; what '.join(problems)}. Name the model that it was trained on as `base_model_name_or_path` in "
            "its adapter_config.json"
        )


@torch.no_grad()
def merge_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`model`, whose weights are float32, with an adapter merged into them.

    Raises:
        InputError: if the adapter cannot be read, does not fit, or gives something else when it is merged.
    """
    adapted = put_adapter(model, read_adapter(folder), loaded_adapter(folder), folder)
    adapted.eval()
    ids = torch.arange(1, 9)[None] % model.get_input_embeddings().get_parameter("weight").shape[0]
    beside = language_model(model)(input_ids=ids, use_cache=False).logits
    with _adapter_errors(folder):
        merged: PreTrainedModel = adapted.merge_and_unload()
    apart = (language_model(merged)(input_ids=ids, use_cache=False).logits - beside).norm() / beside.norm()
    if not apart <= MERGED_APART:
        raise InputError(
            f"the adapter in {folder} cannot be merged: merged, its logits are {float(apart):.2g} of their norm away "
            "from those that it has beside the model (as with an adapter on a weight that several layers share)"
        )
    return merged


def _give_data(adapted: PeftModel) -> None:
    """Move adapter layers from the meta device to the CPU; what is in them is to be overwritten."""
    for layer in adapted.modules():
        if isinstance(layer, BaseTunerLayer):
            for name in layer.adapter_layer_names:
                part = getattr(layer, name, None)
                if isinstance(part, torch.nn.Module):
                    part.to_empty(device="cpu")


@contextmanager
def _adapter_errors(folder: Path) -> Iterator[None]:
    """What PEFT raises for an adapter that it cannot use is an error of the input."""
    try:
        yield
    except (torch.OutOfMemoryError, InputError):
        raise
    except Exception as error:  # of many kinds: what a config of theirs or ours says reaches far into PEFT
        raise InputError(f"the adapter in {folder} cannot be used: {one_line(error)}") from error
