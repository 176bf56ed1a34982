"""Students and teachers whose weights are kept in few bits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_model, write_quantized
from helpers.tiny_models import write_tokenizer
from torch import nn

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.testing import make_context
from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.export import write_weights
from distillkit_builtin.local.footprint import footprint
from distillkit_builtin.local.policy import Policy
from distillkit_builtin.local.quantization import require_differentiable
from distillkit_builtin.local.student import LocalStudent

pytestmark = pytest.mark.filterwarnings("ignore")
FOUR: dict[str, Any] = {"load_in_4bit": True}
EIGHT: dict[str, Any] = {"load_in_8bit": True, "llm_int8_threshold": 0.0}


def load(source: str) -> CausalLM:
    return CausalLM.load(source, Device(torch.device("cpu")), torch.float32, torch.float32)


def items() -> list[PromptAndResponse]:
    ids = np.random.default_rng(0).integers(5, 250, 40)
    return [
        PromptAndResponse(token_ids(ids[:7]), token_ids(ids[7:16])),
        PromptAndResponse(token_ids(ids[16:36]), token_ids(ids[36:])),
    ]


def dense(quantized: CausalLM) -> CausalLM:
    """The same model with the numbers that its layers compute with as plain weights."""
    model = random_model("llama", hidden_size=64, head_dim=16, intermediate_size=128)
    for name, module in model.named_modules():
        theirs = quantized.model.get_submodule(name)
        if isinstance(module, nn.Linear) and type(theirs) is not nn.Linear:
            module.weight = nn.Parameter(theirs(torch.eye(module.in_features)).t().detach(), False)
    return CausalLM(model, quantized.device, quantized.dtype)


def gradient(causal_lm: CausalLM) -> torch.Tensor:
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        for index, parameter in enumerate(policy.trained.values()):
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(index))
    with policy.training():
        found = torch.autograd.grad(policy.logprobs(items()).sum(), list(policy.trained.values()))
    return torch.cat([one.flatten() for one in found])


@pytest.mark.parametrize("options", [FOUR, EIGHT], ids=["4 bit", "8 bit"])
def test_a_gradient_goes_through_every_quantized_layer(options: dict[str, Any], tmp_path: Path) -> None:
    quantized = load(write_quantized(tmp_path, **options))
    reference = gradient(dense(quantized))
    assert (gradient(quantized) - reference).norm() < 0.15 * reference.norm()


@pytest.mark.parametrize("options", [FOUR, EIGHT], ids=["4 bit", "8 bit"])
def test_logprobs_are_the_same_with_and_without_gradient_alone_and_beside_others(
    options: dict[str, Any], tmp_path: Path
) -> None:
    policy = Policy.lora(load(write_quantized(tmp_path, **options)), rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        alone = torch.cat([policy.causal_lm.response_logprobs([item]) for item in items()])
    with policy.training():
        together = policy.logprobs(items()).detach()
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_writing_the_adapter_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    policy = Policy.lora(load(write_quantized(tmp_path, **FOUR)), rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        before = policy.causal_lm.response_logprobs(items())
        write_weights(policy, tmp_path)
        torch.testing.assert_close(policy.causal_lm.response_logprobs(items()), before, atol=0, rtol=0)


class NoGradient(nn.Linear):
    """As kernels for inference are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(x)


class OtherGradient(nn.Linear):
    """One that fits the weight only in part."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        return out.detach() + 0.5 * (out - out.detach())


@pytest.mark.parametrize("kind", [NoGradient, OtherGradient])
def test_a_layer_without_its_gradient_is_found(kind: type[nn.Linear]) -> None:
    layer = kind(8, 4)
    layer.register_buffer("zeros", torch.zeros(1, dtype=torch.int32))  # as quantized layers hold
    with pytest.raises(InputError, match=rf"layer '0' \({kind.__name__}\) computes without a gradient that fits"):
        require_differentiable(nn.Sequential(layer))
    plain = nn.Linear(8, 4)
    plain.register_buffer("zeros", torch.zeros(1, dtype=torch.int32))
    require_differentiable(nn.Sequential(plain))


def config(folder: Path, quantization: dict[str, Any] | None) -> str:
    random_model("llama").save_pretrained(folder)
    write_tokenizer(folder)
    if quantization is not None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantization}))
    return str(folder)


def check(source: str, **options: Any) -> None:
    LocalStudent(model=source, device="cpu", dtype="float32", **options).check(make_context())


@pytest.mark.parametrize(
    ("quantization", "options", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, {}, r"cannot be loaded here: .*optimum"),
        ({"quant_method": "awq", "bits": 4}, {}, r"cannot be loaded here: .*gptqmodel"),
        ({"quant_method": "hqq"}, {}, r"cannot be loaded here: .*HQQ"),
        ({"quant_method": "runes"}, {}, "cannot be loaded here: Unknown quantization type, got runes"),
        ({"quant_method": "bitsandbytes", **FOUR}, {"lora_rank": 0}, r"lora_rank: 0 .* quantized \(bitsandbytes\)"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {}, r"llm_int8_threshold to 0\.0"),
    ],
)
def test_check_says_what_cannot_be_done(
    quantization: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        check(config(tmp_path, quantization), **options)


def test_weights_that_are_not_quantized_though_their_config_says_so(tmp_path: Path) -> None:
    source = config(tmp_path, {"quant_method": "bitsandbytes", **FOUR})
    with pytest.raises(InputError, match=r"q_proj\.weight in its files is not quantized"):
        load(source)


def test_memory_is_that_of_the_bits(tmp_path: Path) -> None:
    sizes = []
    for name, quantization in (("plain", None), ("four", {"quant_method": "bitsandbytes", **FOUR})):
        sizes.append(footprint(config(tmp_path / name, quantization), torch.device("cpu"), "float32"))
    plain, four = sizes
    linear = plain.structure.linear_parameters
    assert plain.weight_bytes - four.weight_bytes == linear * 4 - linear // 2
    assert plain.training_bytes(4) - four.training_bytes(4) == 4 * linear - 4 * 4 * plain.structure.linear_ends
    assert "as bitsandbytes, computed in float32, on cpu" in four.describe()
