"""Tiny checkpoints in the formats of other tools, written by hand: no tool of theirs is needed to write them.

Beside each stands the same model with the numbers that its bits stand for as plain weights: what a test compares with.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from helpers.model_families import random_model
from helpers.tiny_models import write_tokenizer

FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
"""What the lower three bits of a number in E2M1 stand for; the fourth is the sign."""
SIZES: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A quantized model in two directories."""

    packed: str
    """As a tool of quantization writes it."""
    plain: str
    """Its numbers in float32, without a quantization config."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One weight as it is stored."""

    tensors: Mapping[str, Tensor]
    """By the end of their names, which takes the place of the weight's."""
    numbers: Tensor
    """What they stand for."""


Packer = Callable[[Tensor], Packed]


def write_packed(
    folder: Path,
    config: Mapping[str, Any],
    pack: Packer,
    *,
    kind: str = "llama",
    only: str = "_proj.weight",
    **over: Any,
) -> Checkpoint:
    """A model of that kind with every weight packed whose name ends in `only`, and this quantization config."""
    plain, packed = folder / "plain", folder / "packed"
    random_model(kind, **{**SIZES, **over}).save_pretrained(plain)
    tensors = load_file(plain / "model.safetensors")
    numbers, stored = dict(tensors), dict(tensors)
    for name in [name for name in tensors if name.endswith(only)]:
        weight = pack(stored.pop(name))
        numbers[name] = weight.numbers
        stored |= {name.removesuffix("weight") + end: tensor for end, tensor in weight.tensors.items()}
    packed.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in numbers.items()}, plain / "model.safetensors", _METADATA)
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, packed / "model.safetensors", _METADATA)
    whole = json.loads((plain / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps({**whole, "dtype": "bfloat16", "quantization_config": config}))
    write_tokenizer(plain)
    write_tokenizer(packed)
    return Checkpoint(str(packed), str(plain))


_METADATA = {"format": "pt"}


def write_fp8(folder: Path, block: tuple[int, int] | None = (128, 128), **over: Any) -> Checkpoint:
    """As DeepSeek-V3 and Qwen3-FP8 ship: a scale a block of each weight; without `block`, a scale a weight."""
    scheme = "dynamic" if block else "static"
    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": scheme, "weight_block_size": block}
    return write_packed(folder, config, lambda weight: fp8_blocks(weight, block), **over)


def fp8_blocks(weight: Tensor, block: tuple[int, int] | None) -> Packed:
    """A weight [outputs, inputs] in E4M3 with the scales by which it is to be multiplied."""
    rows, columns = block or weight.shape
    high, wide = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    whole = torch.zeros(high * rows, wide * columns)
    whole[: weight.shape[0], : weight.shape[1]] = weight
    blocks = whole.view(high, rows, wide, columns)
    scale = blocks.abs().amax((1, 3), keepdim=True) / 448
    rounded = (blocks / scale).to(torch.float8_e4m3fn)
    numbers = (rounded.float() * scale).view(whole.shape)[: weight.shape[0], : weight.shape[1]]
    packed = rounded.view(whole.shape)[: weight.shape[0], : weight.shape[1]]
    if block is None:
        return Packed(
            {"weight": packed, "weight_scale_inv": scale.view(()), "activation_scale": torch.tensor(0.5)}, numbers
        )
    return Packed({"weight": packed, "weight_scale_inv": scale.view(high, wide)}, numbers)


def compressed(layout: str) -> dict[str, Any]:
    """The quantization config of compressed-tensors: `pack-quantized` (W4A16), `float-quantized`, `int-quantized`."""
    kind = "float" if layout == "float-quantized" else "int"
    four = layout == "pack-quantized"
    weights = {"num_bits": 4 if four else 8, "type": kind, "strategy": "group" if four else "channel"}
    activations = None if four else {"num_bits": 8, "type": kind, "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": {**weights, "group_size": 64 if four else None}}
    groups = {"group_0": {**group, "input_activations": activations, "output_activations": None}}
    rest = {"quantization_status": "compressed", "ignore": ["lm_head"], "kv_cache_scheme": None}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups, **rest}


def write_compressed(folder: Path, layout: str) -> Checkpoint:
    """As llm-compressor writes it; its scales are bfloat16."""
    pack = {"pack-quantized": _four_bits, "float-quantized": _scaled_fp8, "int-quantized": _scaled_int8}[layout]
    return write_packed(folder, compressed(layout), pack)


def _four_bits(weight: Tensor) -> Packed:
    groups = weight.unflatten(-1, (-1, 64))
    scale = (groups.abs().amax(-1, keepdim=True) / 7).to(torch.bfloat16)
    codes = (groups / scale.float()).round().clamp(-8, 7)
    nibbles = (codes.flatten(-2).to(torch.int64) + 8).unflatten(-1, (-1, 8)) << 4 * torch.arange(8)
    packed = nibbles.sum(-1).to(torch.int32)  # the eighth ends in the sign
    tensors = {"weight_packed": packed, "weight_scale": scale[..., 0], "weight_shape": torch.tensor(weight.shape)}
    return Packed(tensors, (codes * scale.float()).flatten(-2))


def _scaled_fp8(weight: Tensor) -> Packed:
    scale = (weight.abs().amax(-1, keepdim=True) / 448).to(torch.bfloat16)
    codes = (weight / scale.float()).to(torch.float8_e4m3fn)
    return Packed({"weight": codes, "weight_scale": scale}, codes.float() * scale.float())


def _scaled_int8(weight: Tensor) -> Packed:
    scale = (weight.abs().amax(-1, keepdim=True) / 127).to(torch.bfloat16)
    codes = (weight / scale.float()).round().clamp(-128, 127).to(torch.int8)
    return Packed({"weight": codes, "weight_scale": scale}, codes.float() * scale.float())


def write_torchao(folder: Path, scheme: str) -> Checkpoint:
    """Written by torchao, with one of its configs; the numbers are what its tensors say that they stand for."""
    import torchao.quantization
    from transformers import TorchAoConfig

    plain, packed = folder / "plain", folder / "packed"
    random_model("llama", **SIZES).save_pretrained(plain)
    options = TorchAoConfig(getattr(torchao.quantization, scheme)())
    model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=options, dtype=torch.float32)
    model.save_pretrained(packed)
    tensors = {name: weight.detach() for name, weight in model.named_parameters()}
    numbers = {name: each if type(each) is Tensor else each.dequantize() for name, each in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in numbers.items()}, plain / "model.safetensors", _METADATA)
    write_tokenizer(plain)
    write_tokenizer(packed)
    return Checkpoint(str(packed), str(plain))


def change_stored(folder: str, change: Callable[[str, Tensor], tuple[str | None, Tensor]]) -> None:
    """Give each tensor of a model's file another name or other numbers; with the name None it is left out."""
    file = Path(folder) / "model.safetensors"
    changed = [change(name, tensor) for name, tensor in load_file(file).items()]
    save_file({name: tensor for name, tensor in changed if name is not None}, file, _METADATA)


def write_mxfp4(folder: Path) -> Checkpoint:
    """As gpt-oss ships: experts in FP4, 32 numbers with one exponent."""
    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    plain, packed = folder / "plain", folder / "packed"
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64, "hidden_size": 64}
    random_model("gpt_oss", **experts, head_dim=16).save_pretrained(plain)
    tensors = load_file(plain / "model.safetensors")
    numbers, stored = dict(tensors), dict(tensors)
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        blocks, scales, read = mxfp4_blocks(stored.pop(name).transpose(1, 2))
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        numbers[name] = read.transpose(1, 2).contiguous()
    packed.mkdir(parents=True)
    save_file(numbers, plain / "model.safetensors", _METADATA)
    save_file(stored, packed / "model.safetensors", _METADATA)
    whole = json.loads((plain / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps({**whole, "dtype": "bfloat16", "quantization_config": config}))
    write_tokenizer(plain)
    write_tokenizer(packed)
    return Checkpoint(str(packed), str(plain))


def mxfp4_blocks(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of [experts, outputs, inputs]: two numbers a byte [..., inputs / 32, 16], exponents, what they stand for."""
    groups = weight.unflatten(-1, (-1, 32))
    exponent = (groups.abs().amax(-1, keepdim=True) / 6).log2().ceil()
    scaled = groups / exponent.exp2()
    code = (scaled.abs()[..., None] - FP4).abs().argmin(-1)
    numbers = FP4[code] * scaled.sign() * exponent.exp2()
    code = (code + 8 * (scaled < 0)).to(torch.uint8)
    return code[..., ::2] | code[..., 1::2] << 4, (exponent[..., 0] + 127).to(torch.uint8), numbers.flatten(-2)
