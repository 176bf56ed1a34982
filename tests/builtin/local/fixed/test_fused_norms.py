"""Norms of a step are computed by one program for all of a class and width, and by their own class outside of it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_causal_lm, random_model
from helpers.recorded_work import RecordedWork
from torch import Tensor, nn

from distillkit.arrays import token_ids
from distillkit_builtin.local.fixed.fused_norms import Forward, FusedNorms
from distillkit_builtin.local.fixed.step_proof import proved_decoder
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.training.policy import Policy

NORMS = {"llama": 5, "olmo2": 9, "gemma3_text": 13, "qwen3": 9, "cohere": 3, "deepseek_v3": 9}
"""How many a model of two layers has: 2 or 4 a layer, 2 more where heads or latents are normed, and the last."""
PROGRAMS = {"llama": 1, "olmo2": 2, "gemma3_text": 2, "qwen3": 2, "cohere": 1, "deepseek_v3": 3}
"""Of how many widths; queries and keys of olmo2 have all heads beside each other."""


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    """Nothing that was compiled elsewhere counts."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counted:
    """A compiler that reads forwards as torch.compile does, generates nothing, and counts its programs."""

    def __init__(self) -> None:
        self.programs: list[torch.fx.GraphModule] = []
        self.norms = FusedNorms(partial(torch.compile, backend=self._compile, dynamic=False))

    def _compile(self, graph: torch.fx.GraphModule, inputs: Sequence[object]) -> Callable[..., object]:
        self.programs.append(graph)
        return graph.forward


def norms_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "Norm" in type(module).__name__]


@pytest.mark.parametrize("family", NORMS)
def test_a_program_a_class_and_width_gives_the_numbers_of_the_norms(family: str) -> None:
    model, counted = random_model(family), Counted()
    norms = norms_of(model)
    assert len(norms) == NORMS[family]
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(), counted.norms.in_the_place_of(model) as found:
        assert found == len(norms)
        for rows in (4, 2, 3, 1):
            for norm in norms:
                width = next(norm.parameters()).shape[0]
                for shape in ((rows, 1, width), (rows, 2, 1, width)):
                    x = torch.randn(shape, generator=generator)
                    assert torch.equal(norm(x), type(norm).forward(norm, x))
    assert len(counted.programs) == PROGRAMS[family]
    assert all("forward" not in vars(norm) for norm in norms)


def test_a_class_may_have_more_widths_than_pytorch_compiles_by_itself() -> None:
    widths = range(2, 4 + torch._dynamo.config.recompile_limit)
    model, counted = nn.ModuleList([TwoNorm(width) for width in widths]), Counted()
    with torch.inference_mode(), counted.norms.in_the_place_of(model):
        for norm, width in zip(model, widths, strict=True):
            norm(torch.ones(3, width))
    assert len(counted.programs) == len(widths)


def test_norms_come_back_where_a_step_fails() -> None:
    model = random_model("gemma3_text")

    def fail() -> None:
        with Counted().norms.in_the_place_of(model):
            assert all("forward" in vars(norm) for norm in norms_of(model))
            raise RuntimeError("the step")

    with pytest.raises(RuntimeError, match="the step"):
        fail()
    assert all("forward" not in vars(norm) for norm in norms_of(model))


class TwoNorm(nn.Module):
    """With a gate, if one is given."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        normed = x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * self.weight
        return normed if gate is None else normed * gate


class Bare(TwoNorm):
    """No norm by its name."""


def test_what_else_there_is_stays_as_it_is() -> None:
    replaced, of_heads = TwoNorm(6), TwoNorm(2, 6)
    setattr(replaced, "forward", plain := lambda x: x)  # noqa: B010 - as a library that offloads weights does
    model = nn.ModuleList([TwoNorm(6), Bare(6), of_heads, replaced, nn.LayerNorm(6), nn.RMSNorm(6)])
    counted, x = Counted(), torch.randn(3, 2, 6)
    with torch.inference_mode(), counted.norms.in_the_place_of(model) as found:
        assert found == 1
        assert torch.equal(model[0](x, x), TwoNorm(6)(x, x))
        assert torch.equal(model[0](x, gate=x), TwoNorm(6)(x, x))
        narrow = x[..., :1]
        assert torch.equal(model[0](narrow), TwoNorm(6)(narrow)), "weights that make it wider"
        assert counted.programs == []
        assert torch.equal(model[0](x), TwoNorm(6)(x))
    assert len(counted.programs) == 1
    assert vars(replaced)["forward"] is plain


def read(causal_lm: CausalLM) -> Tensor:
    items = [PromptAndResponse(token_ids(np.arange(p) + 5), token_ids(np.arange(6) + 9)) for p in (9, 12)]
    return causal_lm.response_logprobs(items)


@pytest.mark.parametrize("family", ["gemma3_text", "llama", "olmo2"])
def test_steps_are_proved_with_fused_norms(family: str) -> None:
    causal_lm, counted = random_causal_lm(family), Counted()
    before = read(causal_lm)
    decoder = proved_decoder(causal_lm, RecordedWork, counted.norms)
    assert decoder.norms is counted.norms
    assert len(counted.programs) == PROGRAMS[family]
    assert torch.equal(read(causal_lm), before)
    assert all("forward" not in vars(norm) for norm in norms_of(causal_lm.model))


def no_compiler(forward: Forward) -> Forward:
    def fail(norm: nn.Module, rows: Tensor) -> Tensor:
        raise RuntimeError("no C compiler")

    return fail


def other_numbers(forward: Forward) -> Forward:
    return lambda norm, rows: forward(norm, rows) * 1.01


@pytest.mark.parametrize("compiler", [no_compiler, other_numbers])
def test_steps_without_fused_norms_are_proved_where_those_with_them_are_not(
    compiler: Callable[[Forward], Forward], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "distillkit")
    causal_lm, captured = random_causal_lm("olmo2"), []

    def capture(work: Callable[[], None]) -> RecordedWork:
        captured.append(RecordedWork(work))
        return captured[-1]

    decoder = proved_decoder(causal_lm, capture, FusedNorms(compiler))
    assert decoder.norms is None
    assert decoder.capture is capture
    assert len(captured) >= 3
    assert "norms of Olmo2ForCausalLM are not fused: " in caplog.text


def test_layers_that_are_compiled_for_training_are_not_compiled_again_behind_a_step(put: Callable[[Any], None]) -> None:
    """Guards of a compiled layer look at the norms in it."""

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> object:
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return mixed.transpose(1, 2), None

    put(attend)
    causal_lm, counted = random_causal_lm("llama"), Counted()
    policy = Policy.full(causal_lm)
    policy.packs = True
    policy.compile("eager")
    torch._dynamo.utils.counters.clear()
    items = [PromptAndResponse(token_ids(np.arange(p) + 5), token_ids(np.arange(6) + 9)) for p in (9, 12)]
    for _ in range(2):
        policy.logprobs(items).sum().backward()
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        proved_decoder(causal_lm, RecordedWork, counted.norms)
    assert compiled == 2, "a layer, and a norm"
    assert len(counted.programs) == 1
