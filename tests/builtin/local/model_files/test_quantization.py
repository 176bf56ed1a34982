"""Students and teachers whose weights are kept in few bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_model, write_quantized
from torch import nn

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.export.export import write_weights
from distillkit_builtin.local.lora.lora import lora_layers
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.load_weights import load_weights
from distillkit_builtin.local.model_files.quantization import computing_first, require_differentiable
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.model_source import resolve_model

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
def test_a_model_is_loaded_where_it_is_computed_not_on_the_first_gpu(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_quantized(tmp_path, **options)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 7)
    loaded = load_weights(resolve_model(source), torch.float32)
    assert {tensor.device.type for tensor in loaded.state_dict().values()} == {"cpu"}


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


class ScaledLinear(nn.Linear):
    """As transformers' layer for FP8: its weight is to be multiplied by a scale. Here it does so by itself."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__(like.in_features, like.out_features, bias=False)
        scale = like.weight.detach().abs().amax() / 448
        self.weight = nn.Parameter((like.weight.detach() / scale).to(torch.float8_e4m3fn), False)
        self.weight_scale_inv = nn.Parameter(scale, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.weight_scale_inv)


@pytest.mark.parametrize("bare", [False, True], ids=["a class of its own", "a plain linear layer"])
def test_nothing_is_added_to_a_weight_that_is_kept_with_a_scale(bare: bool) -> None:
    model = random_model("llama")
    for name, layer in list(model.named_modules()):
        if name.endswith("_proj"):
            model.set_submodule(name, ScaledLinear(layer))
    causal_lm = CausalLM(model, Device(torch.device("cpu")), torch.float32)
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    if bare:
        for layer in model.modules():
            if type(layer) is ScaledLinear:
                layer.__class__ = nn.Linear
        assert not list(lora_layers(model))
        return
    copied = SamplingCopy(causal_lm)
    bits = [each.view(torch.uint8).clone() for each in model.parameters() if each.dtype == torch.float8_e4m3fn]
    with torch.no_grad():
        before = causal_lm.response_logprobs(items())
        for index, parameter in enumerate(policy.trained.values()):
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(index))
        torch.testing.assert_close(copied.causal_lm.response_logprobs(items()), before, atol=1e-5, rtol=1e-5)
        copied.refresh()
        after = causal_lm.response_logprobs(items())
        torch.testing.assert_close(copied.causal_lm.response_logprobs(items()), after, atol=1e-4, rtol=1e-4)
    assert (after - before).abs().max() > 0.1
    kept = [each for each in model.parameters() if each.dtype == torch.float8_e4m3fn]
    assert len(kept) == len(bits) == 14
    assert all(torch.equal(now.view(torch.uint8), then) for now, then in zip(kept, bits, strict=True))


def test_a_gradient_is_tried_through_weights_that_are_kept_with_a_scale() -> None:
    class Blocked(ScaledLinear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.detach())

    require_differentiable(nn.Sequential(ScaledLinear(nn.Linear(8, 4))))
    with pytest.raises(InputError, match=r"\(Blocked\) computes without a gradient that fits"):
        require_differentiable(nn.Sequential(Blocked(nn.Linear(8, 4))))


def test_kernels_that_fail_at_the_first_forward_are_one_sentence(tmp_path: Path) -> None:
    model = load(write_quantized(tmp_path, **FOUR)).model
    with (
        pytest.raises(InputError, match=r"\(bitsandbytes\), and cannot be computed here: no kernel; take the"),
        computing_first(model, "it"),
    ):
        raise ImportError("no kernel. Many more words\nand lines")
    with pytest.raises(ImportError), computing_first(random_model("llama"), "it"):
        raise ImportError("of something else")
