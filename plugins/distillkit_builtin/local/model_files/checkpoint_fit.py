"""Whether every weight of a model comes from its files, found without reading them: torch's meta device holds no data.

transformers fills what a checkpoint lacks with random numbers, drops what fits nothing, and warns. Here the names and
shapes of the files' headers go through transformers' own loading on the meta device, with all its renaming, tying and
merging, and what does not come out even is an error. The same is asked of the real loading.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names, unavailable
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS, empty_model
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.local.model_files.quiet_loading import quiet_loading
from distillkit_builtin.local.model_files.stored_quantization import (
    TENSORS_TELL,
    quantization_in,
    stays_packed,
    to_load,
    unpacked,
)
from distillkit_builtin.local.model_files.unpacked_weights import require_one_scheme, require_scales, unpack_exactly
from distillkit_builtin.local.model_files.weight_files import StoredTensor, model_files, stored_tensors

FLOATS: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The formats of weights that are numbers as they stand; others need scales, which a quantization config names."""
OTHER_SENSES = re.compile(r"vision|visual|image|video|audio|speech|multi_?modal|mm_|mtp|nextn")
"""In the names of a checkpoint's parts that a text model has no use for: towers of other senses, drafting heads."""
LAYER = re.compile(r"\.layers\.(\d+)\.")
NO_WEIGHT = re.compile(
    r"\.attn(\.attention)?\.(masked_)?bias$|\.(k|v|kv)_scale$|\.[kv]_proj\.output_scale$"
    r"|\.input_(global_)?scale$|\.input_zero_point$|\.activation_scale$"
)
"""Ends of names of what stands beside a layer's weights: causal masks, which GPT-like models stored once, and the
scales of a cache or of activations in 8 bits, which other servers may keep."""
PACKED: Mapping[str, torch.dtype] = {
    **FLOATS,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U8": torch.uint8,
    "I8": torch.int8,
}
"""The formats of what is unpacked."""


def is_quantized(base: str) -> bool:
    """Whether a model's weights are in a quantized format once they are loaded."""
    return stays_packed(read_config(base))


def require_weights(base: str) -> None:
    """Raise InputError unless a model's files are there, whole, and fit it, as far as they are on this machine."""
    files = model_files(base)
    if files is None:
        return
    stored = stored_tensors(files)
    said = quantization_in(read_config(base)) or {}
    method = said.get("quant_method")
    if method == "compressed-tensors":
        require_one_scheme(base, said)
    if said and method not in TENSORS_TELL:  # what is stored is not what the model has: the loading shows if it fits
        return
    require_scales(base, stored if said else {})
    model, info = load_on_meta(base, stored)
    require_fit(base, model, info)
    if said:
        return
    numbers = {name: tensor for name, tensor in stored.items() if tensor.format in FLOATS}
    if len(numbers) < len(stored):
        _require_numbers(base, stored, load_on_meta(base, numbers)[1]["missing_keys"], model)


class _WithoutData(torch.Tensor):
    """A tensor on the meta device that stays there: transformers takes embeddings of 95 GB to the CPU to join them."""

    @classmethod
    def of(cls, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A new one."""
        return torch.empty(shape, dtype=dtype, device="meta").as_subclass(cls)

    def to(self, device: object = None, dtype: torch.dtype | None = None) -> torch.Tensor:  # type: ignore[override]
        """A plain tensor on the meta device, whatever `device` is."""
        plain = self.as_subclass(torch.Tensor)
        return plain if dtype is None else plain.to(dtype)


def load_on_meta(
    base: str, stored: Mapping[str, StoredTensor], dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model without data as transformers would load it from such tensors, and what it says of the loading."""
    config = to_load(read_config(base))
    return _load_on_meta(base, config, stored, dtype, FLOATS if config is read_config(base) else PACKED)


def _load_on_meta(
    base: str,
    config: PreTrainedConfig,
    stored: Mapping[str, StoredTensor],
    dtype: torch.dtype,
    formats: Mapping[str, torch.dtype],
) -> tuple[PreTrainedModel, dict[str, Any]]:
    unpack_exactly()
    tensors = {
        name: _WithoutData.of(tensor.shape, formats.get(tensor.format, torch.float32))
        for name, tensor in stored.items()
    }
    with quiet_loading():
        cls: Any = type(empty_model(config))
    try:
        with quiet_loading():
            model, info = cls.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,  # they are reported, like all that does not fit
                output_loading_info=True,
            )
    except InputError:
        raise
    except MODEL_ERRORS as error:
        raise InputError(unavailable("model", base, error)) from error
    return model, info


def unpacked_on_meta(base: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model without data as it is loaded as `dtype`, where its weights are unpacked from a quantized format."""
    config = unpacked(read_config(base))
    with quiet_loading():
        weights = empty_model(config).state_dict()
    stored = {name: StoredTensor(Path(base), "F32", tuple(tensor.shape)) for name, tensor in weights.items()}
    return _load_on_meta(base, config, stored, dtype, FLOATS)[0]


def require_fit(base: str, model: PreTrainedModel, info: Mapping[str, Collection[Any]]) -> None:
    """Raise InputError if weights of the model did not come from its files, or tensors of its decoder fit nothing.

    `info` is what transformers says of the loading. A head that is tied is not missing, nor are buffers that are
    computed.
    """
    problems = [
        _listed("have other shapes than its config says", [_shapes(*entry) for entry in info["mismatched_keys"]]),
        _listed("are missing", info["missing_keys"]),
        _listed("fit nothing in it", [name for name in info["unexpected_keys"] if _matters(name, model)]),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise InputError(
            f"the weights of {base!r} are not those of a {type(model).__name__} with its config.json: {found}. "
            "transformers would go on with random numbers in the place of some weights, or without some; take the "
            "config.json and the weights that belong together"
        )


def _matters(name: str, model: PreTrainedModel) -> bool:
    """Whether a tensor that fits nothing belongs to what computes the logits, as far as its name tells.

    A part beside backbone and head (a value head, a classifier) does not, nor does a tower for another sense, a mask or
    a cache's scale, nor do layers behind the last that draft more tokens, where the config says how many there are.
    """
    config = model.config.get_text_config()
    layers = int(getattr(config, "num_hidden_layers", 0) or 0)
    drafting = int(getattr(config, "num_nextn_predict_layers", 0) or 0)
    layer = LAYER.search(name)
    if OTHER_SENSES.search(name) or NO_WEIGHT.search(name) or (layer and layers <= int(layer[1]) < layers + drafting):
        return False
    top = {child for child, _ in model.named_children()}
    return name.partition(".")[0] in top or not top


def _require_numbers(
    base: str, stored: Mapping[str, StoredTensor], missing: Collection[str], model: PreTrainedModel
) -> None:
    """Raise InputError if weights that are floating-point come from tensors that are not; `missing`: without those."""
    weights = model.state_dict()
    wrong = [name for name in missing if name in weights and weights[name].is_floating_point()]
    if wrong:
        odd = {tensor.format: tensor.file for tensor in stored.values() if tensor.format not in FLOATS}
        formats = ", ".join(f"{name} (in {path.name})" for name, path in odd.items())
        raise InputError(
            f"weights of {base!r} are stored as {formats}, and its config.json has no quantization_config that says "
            f"how to read them: {first_names(wrong)}. Take the checkpoint that it was made of, or one with that config"
        )


def _listed(what: str, names: Collection[str]) -> str:
    return f"{len(names)} tensors {what} ({first_names(names)})" if names else ""


def _shapes(name: str, stored: Collection[int], expected: Collection[int]) -> str:
    return f"{name}: {list(stored)} in the file, {list(expected)} by the config"
