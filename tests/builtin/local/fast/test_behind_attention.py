"""Which layers are computed in one kernel behind their attention, and that a model of such layers is the same model."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.fast_families import FAST_FAMILIES, fast_family
from torch import Tensor

from distillkit_builtin.local.fast import backbone as backbone_module
from distillkit_builtin.local.fast import behind_attention as taken
from distillkit_builtin.local.fast.attention import CausalAttention
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.behind_attention import BehindAttention, LayerTiles
from distillkit_builtin.local.fast.feed_forward import GatedLayer
from distillkit_builtin.local.fast.few_rows import Tiles
from distillkit_builtin.local.fast.layer_weights import LayerWeights
from distillkit_builtin.local.fast.projection import Projection
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.model.fused_ops import add_and_norm, gated

IDS = torch.arange(3, 23)
COUNTER = torch.zeros(1, dtype=torch.int32)
PLAIN = ("llama", "ministral", "mistral", "phi3", "qwen3")
"""Families whose layers have the parts that the kernel knows."""


def empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def qwen3_600m() -> LayerWeights:
    norms = [empty(1024) for _ in range(2)]
    gated_layer = GatedLayer(Projection(empty(6144, 1024), None), Projection(empty(1024, 3072), None), "silu")
    heads = empty(128), empty(128)
    qkv, out = Projection(empty(4096, 1024), None), Projection(empty(1024, 2048), None)
    return LayerWeights(norms[0], qkv, *heads, out, 0.1, None, norms[1], gated_layer, None, None)


def found(layer: LayerWeights, norm_after: Tensor | None, qkv: Projection | None) -> BehindAttention | None:
    return BehindAttention.of(layer, norm_after, qkv, eps=1e-6, about_one=False, counter=COUNTER)


def test_a_layer_that_was_measured_to_gain_is_taken() -> None:
    layer = qwen3_600m()
    some = found(layer, layer.norm_before, layer.qkv)
    assert some is not None
    assert some.qkv is layer.qkv.weight
    last = found(layer, layer.norm_before, None)
    assert last is not None
    assert last.qkv is None


def test_other_parts_are_not_left_out() -> None:
    layer, norm = qwen3_600m(), empty(1024)
    feed_forward, qkv, out = layer.feed_forward, layer.qkv, layer.out
    assert isinstance(feed_forward, GatedLayer)
    biased, adapted = replace(qkv, bias=empty(4096)), replace(out, down=empty(8, 2048), up=empty(1024, 8))
    for other in (
        replace(layer, norm_behind_attention=norm),
        replace(layer, norm_behind=norm),
        replace(layer, norm_between=None),
        replace(layer, residual_scale=0.5),
        replace(layer, out=adapted),
        replace(layer, feed_forward=replace(feed_forward, down=replace(feed_forward.down, bias=norm))),
        replace(layer, feed_forward=lambda hidden: hidden),
        replace(layer, out=Projection(empty(2048, 1024).t(), None)),
        replace(layer, out=Projection(out.weight.half(), None)),
    ):
        assert found(other, norm, qkv) is None
    assert found(layer, norm, biased) is None
    assert found(layer, None, qkv) is None
    in_float32 = [Projection(weight.float(), None) for weight in (out.weight[:, :1024], qkv.weight[:2048])]
    half = GatedLayer(Projection(empty(3072, 1024).float(), None), Projection(empty(1024, 1536).float(), None), "silu")
    assert found(replace(layer, out=in_float32[0], feed_forward=half), norm, in_float32[1]) is None


def test_a_layer_of_another_size_is_not_taken() -> None:
    """Qwen3-8B's is read faster by cuBLAS; one that is not made of whole tiles cannot be computed."""
    layer, norm = qwen3_600m(), empty(1024)
    large = GatedLayer(Projection(empty(24_576, 1024), None), Projection(empty(1024, 12_288), None), "silu")
    assert found(replace(layer, feed_forward=large), norm, layer.qkv) is None
    odd = GatedLayer(Projection(empty(6144 + 64, 1024), None), Projection(empty(1024, 3072 + 32), None), "silu")
    assert found(replace(layer, feed_forward=odd), norm, layer.qkv) is None


def test_only_few_rows_are_taken_without_gradients() -> None:
    layer = qwen3_600m()
    some = found(layer, layer.norm_before, layer.qkv)
    assert some is not None
    with torch.no_grad():
        assert some.takes(empty(64, 1024), empty(64, 2048))
        assert not some.takes(empty(65, 1024), empty(65, 2048))
        assert not some.takes(empty(64, 1024).half(), empty(64, 2048).half())
        assert not some.takes(empty(64, 1024), empty(64, 4096)[:, ::2])
        assert not replace(some, norm_after=some.norm_after.float()).takes(empty(64, 1024), empty(64, 2048))
    assert not some.takes(empty(64, 1024), empty(64, 2048))


@pytest.mark.parametrize(
    ("triton", "multiprocessors", "can"),
    [("3.6.0", 132, True), ("3.4.0", 132, True), ("3.10.0", 128, True), ("3.3.1", 132, False), ("3.6.0", 114, False)],
)
def test_programs_wait_only_where_all_run_at_once(
    monkeypatch: pytest.MonkeyPatch, triton: str, multiprocessors: int, can: bool
) -> None:
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=triton))
    properties = SimpleNamespace(multi_processor_count=multiprocessors)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert taken._can_wait.__wrapped__(torch.device("cuda", 0)) is can


def by_pytorch(layer: BehindAttention, tiles: LayerTiles, residual: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    """As the kernel computes it."""
    how = None, layer.eps, layer.about_one
    residual, read = add_and_norm(residual, mixed @ layer.out.t(), None, layer.norm_between, *how)
    wide = gated(read @ layer.gate_up.t(), layer.activation)
    residual, read = add_and_norm(residual, wide @ layer.down.t(), None, layer.norm_after, *how)
    return residual, read if layer.qkv is None else read @ layer.qkv.t()


Kernel = Callable[[BehindAttention, LayerTiles, Tensor, Tensor], tuple[Tensor, Tensor]]


@pytest.fixture
def computed_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel], None]:
    """Has every layer that has no other parts than the kernel knows computed by a stand-in."""

    def put(kernel: Kernel) -> None:
        module = SimpleNamespace(behind_attention=kernel)
        monkeypatch.setitem(sys.modules, "distillkit_builtin.local.fast.behind_attention_kernel", module)

    monkeypatch.setattr(taken, "LAYER_BYTES", range(2**62))
    monkeypatch.setattr(taken, "TILES", LayerTiles(*[Tiles(4, 4, 1, 1)] * 4))
    monkeypatch.setattr(taken, "DTYPES", (torch.float32,))
    monkeypatch.setattr(backbone_module, "runs_on", lambda device: True)
    return put


@pytest.mark.parametrize("family", sorted(FAST_FAMILIES))
@torch.inference_mode()
def test_a_model_computed_so_is_the_same_model(computed_by: Callable[[Kernel], None], family: str) -> None:
    computed: list[Tensor] = []

    def kernel(layer: BehindAttention, tiles: LayerTiles, residual: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
        computed.append(residual)
        return by_pytorch(layer, tiles, residual, mixed)

    computed_by(kernel)
    causal_lm = fast_family(family)
    backbone = FastBackbone(causal_lm)
    hidden = backbone(IDS, backbone.rotary(len(IDS)), CausalAttention(len(IDS)))
    torch.testing.assert_close(hidden, causal_lm.hidden_states(IDS[None])[0], atol=1e-4, rtol=1e-4)
    if family in PLAIN:
        assert len(computed) == len(backbone.layers)


def failing(layer: BehindAttention, tiles: LayerTiles, residual: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    raise RuntimeError("too many blocks in cooperative launch")


def wrong(layer: BehindAttention, tiles: LayerTiles, residual: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    """In the queries, keys and values of the next layer alone."""
    total, read = by_pytorch(layer, tiles, residual, mixed)
    return total, read if layer.qkv is None else 1.01 * read


@pytest.mark.parametrize(
    ("kernel", "said"), [(failing, "too many blocks"), (wrong, "queries, keys and values of its layer 1 differ")]
)
def test_a_kernel_that_fails_or_is_wrong_costs_itself_alone(
    computed_by: Callable[[Kernel], None], kernel: Kernel, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    computed_by(kernel)
    backbone = verified_backbone(fast_family("qwen3"))
    assert not any(backbone.behind)
    assert said in caplog.text


def test_one_that_is_right_proves_nothing_of_what_more_rows_are_computed_by(
    computed_by: Callable[[Kernel], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_and_norm_apart(*given: Any) -> tuple[Tensor, Tensor]:
        total, read = add_and_norm(*given)
        return total, 1.01 * read

    computed_by(by_pytorch)
    monkeypatch.setattr(backbone_module, "add_and_norm", add_and_norm_apart)
    with pytest.raises(UnsupportedModelError, match="differ from transformers'"):
        verified_backbone(fast_family("qwen3"))


def test_one_that_is_right_is_kept(computed_by: Callable[[Kernel], None], caplog: pytest.LogCaptureFixture) -> None:
    computed_by(by_pytorch)
    assert all(verified_backbone(fast_family("qwen3")).behind)
    assert not caplog.records
