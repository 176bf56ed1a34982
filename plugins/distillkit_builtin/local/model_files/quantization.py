"""Models whose weights are kept in few bits: what loading them needs, how large they are, what they cannot do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, __version__
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoHfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin, QuantizationMethod

from distillkit.errors import InputError
from distillkit_builtin.file_errors import one_line
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.local.model_files.stored_quantization import quantization_in, to_load, unpacked_method

PACKAGES: Mapping[str, Mapping[str, str]] = {
    "auto-round": {"auto_round": "auto-round"},
    "awq": {"gptqmodel": "gptqmodel"},
    "bitsandbytes": {"accelerate": "accelerate", "bitsandbytes": "bitsandbytes"},
    "compressed-tensors": {"compressed_tensors": "compressed-tensors"},
    "fp8": {"accelerate": "accelerate"},
    "gptq": {"optimum": "optimum", "gptqmodel": "gptqmodel"},
    "quanto": {"optimum": "optimum-quanto"},
    "quark": {"quark": "amd-quark"},
    "torchao": {"torchao": "torchao"},
}
"""What reads a method's weights: the packages as they are imported, and as pip calls them."""
OTHERWISE = "take the model that it was made of, or serve it over HTTP"
LONGEST_REASON = 140
MAX_GRADIENT_ERROR = 0.2
"""As a share: activations may be rounded to 8 bits."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights of a model's linear layers are kept."""

    method: str
    """As its config calls it."""
    weight_bytes: float | None
    """Of one weight; None where the format does not say."""


def quantization_of(source: str, device: torch.device) -> Quantization | None:
    """Of the model `source` where it is computed on `device`; None if its weights are plain numbers there.

    Raises:
        InputError: if what its format needs is missing, or if a token's logprob would depend on other tokens.
    """
    config = to_load(read_config(source))
    said = quantization_in(config)
    if said is None:
        return None
    method = str(said.get("quant_method", "bitsandbytes"))
    if unpacked_method(config) is None:
        _require_readable(source, method, device)
    _require_packages(source, method)
    try:
        quantizer = AutoHfQuantizer.from_config(dict(said), pre_quantized=True)
        quantizer.validate_environment(device_map={"": device}, dtype=torch.float32)
    except InputError:
        raise
    except MODEL_ERRORS as error:
        raise InputError(f"{source} is quantized ({method}), and cannot be loaded here: {_reason(error)}") from error
    options = quantizer.quantization_config
    if getattr(options, "dequantize", False) or unpacked_method(config) is not None:
        return None
    if getattr(options, "load_in_8bit", False) and options.llm_int8_threshold:
        raise InputError(
            f"{source} is quantized by bitsandbytes with llm_int8_threshold {options.llm_int8_threshold:g}: which of a "
            "token's activations are rounded depends on the tokens beside and behind it, and so would its logprob. Set "
            "llm_int8_threshold to 0.0 in the quantization_config of a copy of its config.json, or take 4 bits"
        )
    return Quantization(method, _weight_bytes(quantizer.quantized_element_size, options))


def _method(options: QuantizationConfigMixin) -> str:
    """As configs call it."""
    return str(getattr(options.quant_method, "value", options.quant_method))


def _reason(error: Exception) -> str:
    """The first sentence of what a library says, and the way out."""
    return f"{one_line(error).partition('. ')[0][:LONGEST_REASON]}; {OTHERWISE}"


def _require_readable(source: str, method: str, device: torch.device) -> None:
    """Raise InputError for a method that transformers has no way to read, or none on this kind of device."""
    if method not in AUTO_QUANTIZER_MAPPING and method != QuantizationMethod.BITS_AND_BYTES.value:
        raise InputError(
            f"{source} is quantized ({method}), which transformers {__version__} does not know; {OTHERWISE}"
        )
    if method in ("hqq", "nvfp4", "gguf"):
        raise InputError(f"{source} is quantized ({method}), which transformers {__version__} cannot read; {OTHERWISE}")


def _require_packages(source: str, method: str) -> None:
    """Raise InputError if packages that read the method's weights are missing."""
    missing = {package: name for package, name in PACKAGES.get(method, {}).items() if find_spec(package) is None}
    if missing:
        names = " ".join(missing.values())
        raise InputError(
            f"{source} is quantized ({method}), and what reads its weights is not installed: pip install {names}"
        )


def _weight_bytes(element_size: float | None, options: object) -> float | None:
    bits = getattr(options, "bits", None)
    return bits / 8 if element_size is None and isinstance(bits, int) else element_size


@contextmanager
def computing_first(model: PreTrainedModel, source: str) -> Iterator[None]:
    """A context for the first forward of a model: kernels of packed weights may be missing, or made for other formats.

    Raises:
        InputError: if its weights are packed, and cannot be computed with here.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ImportError, TypeError) as error:
        quantizer = getattr(model, "hf_quantizer", None)
        if quantizer is None:
            raise
        method = _method(quantizer.quantization_config)
        raise InputError(f"{source} is quantized ({method}), and cannot be computed here: {_reason(error)}") from error


def holds_numbers(weight: Tensor) -> bool:
    """Whether a tensor's values are computed with as they are: FP8 needs scales, other classes of tensors unpack."""
    plain = type(weight.data) in (Tensor, DTensor)
    return plain and weight.is_floating_point() and weight.dtype.itemsize > 1


def require_trainable(source: str, method: str | None) -> None:
    """Raise InputError if the weights, all of which are to be trained, are kept in few bits by this method."""
    if method is not None:
        raise InputError(
            f"student.lora_rank: 0 trains all weights, and those of {source} are quantized ({method}), "
            "which take no gradient; train a LoRA (lora_rank: 16), or name a model with weights in bfloat16 or float32"
        )


def prepare_quantized(model: PreTrainedModel, source: str) -> None:
    """Make what was loaded fit to be computed and trained; does nothing to a model that is not quantized.

    Raises:
        InputError: if the config says that weights are quantized, and the files had them as plain numbers.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or quantizer.quantization_config.quant_method != QuantizationMethod.BITS_AND_BYTES:
        return  # other formats lack tensors then
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and quantizer.param_needs_quantization(model, name):
            raise InputError(
                f"{source}: its config has a quantization_config, and {name} in its files is not quantized. Take "
                "quantization_config out of config.json, or load the model with it by transformers and save it "
                "(save_pretrained): then the files hold what the config says"
            )
    from distillkit_builtin.local.model_files.four_bit_layers import make_differentiable

    make_differentiable(model)


def require_differentiable(model: nn.Module) -> None:
    """Raise InputError if a layer that keeps its weight in few bits has a value, and no gradient that fits it.

    One layer of each class is tried: it is linear, so its gradient by the input says how far the output moves. Kernels
    made for inference often have none, and PyTorch does not always say so.
    """
    tried: set[type[nn.Module]] = set()
    for name, layer in model.named_modules():
        kept = list(layer.parameters(recurse=False)) + list(layer.buffers(recurse=False))
        inputs = getattr(layer, "in_features", None)
        if type(layer) in tried or inputs is None or all(map(holds_numbers, kept)):
            continue
        tried.add(type(layer))
        expected, found = _moves(layer, inputs, kept[0].device)
        if not abs(found - expected) <= MAX_GRADIENT_ERROR * abs(expected):
            raise InputError(
                f"the layer {name!r} ({type(layer).__name__}) computes without a gradient that fits, so nothing can be "
                "trained through it; name a model with weights in bfloat16 or float32, or another quantization"
            )


def _moves(layer: nn.Module, inputs: int, device: torch.device) -> tuple[float, float]:
    """How far the layer's output moves along itself when the input is doubled, and what its gradient says of it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, inputs, generator=generator).to(device).requires_grad_()
    with torch.enable_grad():
        base = layer(torch.zeros_like(x)).detach()
        out = layer(x)
        direction = out.detach() - base
        if not out.requires_grad:
            return float(direction.square().sum()), 0.0
        (gradient,) = torch.autograd.grad((out * direction).sum(), x)
    return float(direction.square().sum()), float((gradient * x.detach()).sum())
