"""Whether quantized weights can be unpacked into the numbers that they stand for, and how, where transformers errs.

Weights of compressed-tensors it multiplies by their scales in the scales' format, often bfloat16; here in float32. A
weight in FP8 has a scale for each block of, say, 128 x 128 numbers; its last blocks are partial where its size is no
multiple. transformers (5.24) finds the size of a block by dividing the weight's by the number of scales: of 192 rows
with 2 scales it takes 96 and 96, where 128 and 64 are meant, and says nothing; with 576 rows it fails.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.integrations.compressed_tensors import CompressedTensorsDequantize
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names, one_line
from distillkit_builtin.local.model_files.stored_quantization import unpacked_method
from distillkit_builtin.local.model_files.weight_files import StoredTensor

SCALES = ("{name}_scale_inv", "{stem}.scale", "{stem}.qscale_weight")
"""Names of what a weight in FP8 is multiplied by: those that transformers knows."""


def require_scales(base: str, stored: Mapping[str, StoredTensor]) -> None:
    """Raise InputError for weights in FP8 without the scales by which transformers would multiply them."""
    bare = [
        name
        for name, tensor in stored.items()
        if tensor.format in ("F8_E4M3", "F8_E5M2")
        and not any(each.format(name=name, stem=name.removesuffix(".weight")) in stored for each in SCALES)
    ]
    if bare:
        raise InputError(
            f"{base!r} is quantized (fp8), and {len(bare)} of its weights have no scales that transformers knows "
            f"(weight_scale_inv): {first_names(bare)}. Take the model that it was made of, or serve it over HTTP"
        )


def require_one_scheme(base: str, quantization: Mapping[str, Any]) -> None:
    """Raise InputError for compressed-tensors of more kinds than transformers tells apart as it unpacks them."""
    groups = list((quantization.get("config_groups") or {}).values())
    for of_experts in (False, True):
        kinds = {
            (str(sorted((group.get("weights") or {}).items())), group.get("format"))
            for group in groups
            if any("experts" in target for target in group.get("targets", ())) == of_experts
        }
        if len(kinds) > 1:
            raise InputError(
                f"{base!r} is quantized (compressed-tensors) in several ways (config_groups), all of which "
                "transformers would unpack as the first; take the model that it was made of, or serve it over HTTP"
            )
    sparsity = (quantization.get("sparsity_config") or {}).get("format", "dense")
    if quantization.get("transform_config") or sparsity != "dense":
        what = "transforms of its activations" if sparsity == "dense" else f"sparse weights ({sparsity})"
        raise InputError(
            f"{base!r} is quantized (compressed-tensors) with {what}, which transformers leaves out as it unpacks "
            "weights; take the model that it was made of, or serve it over HTTP"
        )


@torch.no_grad()
def unpack_tensors(model: PreTrainedModel, base: str) -> None:
    """Replace weights of torchao's tensor classes, if `model` has any, by the numbers that they stand for.

    Raises:
        InputError: for a class that cannot be unpacked on the CPU.
    """
    if unpacked_method(model.config) != "torchao":
        return
    dtype = model.config.get_text_config().dtype
    for name, parameter in list(model.named_parameters()):
        packed: Any = parameter.data
        if type(packed) is Tensor:
            continue
        try:
            numbers = packed.dequantize().to(dtype)
        except (RuntimeError, AttributeError) as error:
            raise InputError(
                f"{base!r} is quantized (torchao), and {name} ({type(packed).__name__}) cannot be unpacked: "
                f"{one_line(error)[:140]}. Take the model that it was made of, or serve it over HTTP"
            ) from error
        module, _, last = name.rpartition(".")
        setattr(model.get_submodule(module), last, nn.Parameter(numbers, requires_grad=False))
    quantizer: Any = model.hf_quantizer
    quantizer.remove_quantization_config(model)


@cache
def unpack_exactly() -> None:
    """Let transformers unpack weights into the numbers that they stand for: of partial blocks the rest is filled up."""
    _read_partial_blocks()
    _multiply_in_float32()


def _multiply_in_float32() -> None:
    theirs: Any = CompressedTensorsDequantize
    unpack = theirs.convert

    def convert(self: CompressedTensorsDequantize, input_dict: dict[str, Any], *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - as theirs
        exact = {name: _in_float32(value) if "scale" in name else value for name, value in input_dict.items()}
        return unpack(self, exact, *rest, **more)

    theirs.convert = convert


def _in_float32(scales: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return [each.float() for each in scales] if isinstance(scales, list) else scales.float()


def _read_partial_blocks() -> None:
    theirs: Any = Fp8Dequantize
    divide = theirs._dequantize_one

    def whole_blocks(self: Fp8Dequantize, quantized: Tensor, scales: Tensor, output_dtype: Any = None) -> Any:  # noqa: ANN401 - as theirs
        block = self.hf_quantizer.quantization_config.weight_block_size
        if not block or scales.dim() < 2 or quantized.dtype not in (torch.float8_e4m3fn, torch.float8_e5m2):
            return divide(self, quantized, scales, output_dtype)
        rows, columns = quantized.shape[-2:]
        more = scales.shape[-2] * block[0] - rows, scales.shape[-1] * block[1] - columns
        if more == (0, 0) or not (0 <= more[0] < block[0] and 0 <= more[1] < block[1]):
            return divide(self, quantized, scales, output_dtype)
        bits = functional.pad(quantized.view(torch.uint8), (0, more[1], 0, more[0])).view(quantized.dtype)
        return divide(self, bits, scales, output_dtype)[..., :rows, :columns].contiguous()

    theirs._dequantize_one = whole_blocks
